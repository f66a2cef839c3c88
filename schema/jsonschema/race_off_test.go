//go:build !race

package jsonschema

const slowdown = 1
