//go:build ignore

// Command generate writes codes_gen.go and the table of docs/spec/errors.md from
// errors.json. It runs in the directory of package wire: go generate ./internal/wire
package main

import (
	"log"
	"os"

	"github.com/signetbus/signet/internal/wire/codegen"
)

const docPath = "../../docs/spec/errors.md"

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	registry, err := os.ReadFile("errors.json")
	if err != nil {
		return err
	}
	src, err := codegen.Go(registry)
	if err != nil {
		return err
	}
	if err := os.WriteFile("codes_gen.go", src, 0o644); err != nil {
		return err
	}
	doc, err := os.ReadFile(docPath)
	if err != nil {
		return err
	}
	if doc, err = codegen.Document(doc, registry); err != nil {
		return err
	}
	return os.WriteFile(docPath, doc, 0o644)
}
