//go:build race

package jsonschema

// slowdown is how much longer things may take than in a plain run.
const slowdown = 10
