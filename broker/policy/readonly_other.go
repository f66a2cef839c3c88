//go:build !linux

package policy

func readOnly(string) bool { return false }
