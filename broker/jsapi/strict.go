package jsapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Limits of a request body.
const (
	maxBodyBytes = 128 << 10 // the server's own cap on consumer metadata, which is the largest member
	maxBodyDepth = 6
)

// Errors of the strict decoder.
var (
	errBodySize   = errors.New("jsapi: body over 128 KiB")
	errBodyUTF8   = errors.New("jsapi: body is not UTF-8")
	errBodyObject = errors.New("jsapi: body is not one JSON object")
	errBodyDepth  = errors.New("jsapi: body nested deeper than 6")
)

// decodeStrict decodes one JSON object into the struct that v points to. Unlike
// encoding/json it refuses repeated members (in any letter case), members that
// the struct does not name byte for byte, null, invalid UTF-8 and trailing bytes:
// each of those is a way to make two parsers read two requests.
func decodeStrict(body []byte, v any) error {
	switch {
	case len(body) > maxBodyBytes:
		return errBodySize
	case !utf8.Valid(body):
		return errBodyUTF8
	}
	if err := checkUnique(body); err != nil {
		return err
	}
	return decodeStruct(body, reflect.ValueOf(v).Elem())
}

// checkUnique walks the whole document once.
func checkUnique(body []byte) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	t, err := dec.Token()
	if err != nil {
		return fmt.Errorf("jsapi: %w", err)
	}
	if t != json.Delim('{') {
		return errBodyObject
	}
	if err := walkObject(dec, 1); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errBodyObject
	}
	return nil
}

func walkObject(dec *json.Decoder, depth int) error {
	if depth > maxBodyDepth {
		return errBodyDepth
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return fmt.Errorf("jsapi: %w", err)
		}
		name, ok := t.(string)
		if !ok {
			return errBodyObject
		}
		// Fold as encoding/json does (it maps K and S look-alikes too).
		fold := strings.ToLower(strings.ToUpper(name))
		if seen[fold] {
			return fmt.Errorf("jsapi: repeated member %.64q", name)
		}
		seen[fold] = true
		if err := walkValue(dec, depth); err != nil {
			return err
		}
	}
	_, err := dec.Token() // the closing brace
	if err != nil {
		return fmt.Errorf("jsapi: %w", err)
	}
	return nil
}

func walkValue(dec *json.Decoder, depth int) error {
	t, err := dec.Token()
	if err != nil {
		return fmt.Errorf("jsapi: %w", err)
	}
	switch t {
	case json.Delim('{'):
		return walkObject(dec, depth+1)
	case json.Delim('['):
		if depth+1 > maxBodyDepth {
			return errBodyDepth
		}
		for dec.More() {
			if err := walkValue(dec, depth+1); err != nil {
				return err
			}
		}
		if _, err := dec.Token(); err != nil {
			return fmt.Errorf("jsapi: %w", err)
		}
	}
	return nil
}

// decodeStruct sets the fields of a struct by exact member name; null is absent.
// Only structs of this package come here: fields are structs, scalars, slices and
// string maps.
func decodeStruct(body []byte, v reflect.Value) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return fmt.Errorf("jsapi: %w", err)
	}
	if err := takeMembers(members, v); err != nil {
		return err
	}
	for name := range members {
		return fmt.Errorf("jsapi: unknown member %.64q", name)
	}
	return nil
}

// takeMembers moves the members that v names out of the map; the parts of a
// split struct are embedded and share the map.
func takeMembers(members map[string]json.RawMessage, v reflect.Value) error {
	t := v.Type()
	for i := range t.NumField() {
		if t.Field(i).Anonymous {
			if err := takeMembers(members, v.Field(i)); err != nil {
				return err
			}
			continue
		}
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		raw, ok := members[name]
		if !ok {
			continue
		}
		delete(members, name)
		if v.Field(i).Kind() == reflect.Struct {
			if err := decodeStruct(raw, v.Field(i)); err != nil {
				return err
			}
			continue
		}
		if err := json.Unmarshal(raw, v.Field(i).Addr().Interface()); err != nil {
			return fmt.Errorf("jsapi: member %s: %w", name, err)
		}
	}
	return nil
}

// encode writes a request struct; no field of them can fail to encode.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return b
}
