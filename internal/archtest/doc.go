// Package archtest holds no product code: its test is the house rules as a
// program. It checks the import table of docs/ARCHITECTURE.md, package comments,
// file, function and type sizes, forbidden names, and that tests neither sleep
// nor skip.
package archtest
