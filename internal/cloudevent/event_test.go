package cloudevent

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// full is an event with every core attribute and some extensions.
func full() *Event {
	e := &Event{
		ID: []byte("a1"), Source: []byte("/shop/checkout"), Type: []byte("order.created"),
		ContentType: []byte("application/json"), DataSchema: []byte("https://example.com/s/1"),
		Subject: []byte("order 17"), Time: []byte("2026-11-22T13:24:51Z"), Data: []byte(`{"n": 1}`),
	}
	e.SetExt([]byte("sequence"), []byte("17"))
	e.SetExt([]byte("authid"), []byte("shop/checkout"))
	e.SetExt([]byte("partitionkey"), []byte("straße"))
	return e
}

func TestGet(t *testing.T) {
	e := full()
	for name, want := range map[string]string{
		"id": "a1", "source": "/shop/checkout", "type": "order.created", "datacontenttype": "application/json",
		"dataschema": "https://example.com/s/1", "subject": "order 17", "time": "2026-11-22T13:24:51Z",
		"specversion": "1.0", "authid": "shop/checkout", "partitionkey": "straße", "sequence": "17",
	} {
		if got := string(e.Get(name)); got != want {
			t.Errorf("Get(%q) = %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"", "data", "ID", "attestation"} {
		if got := e.Get(name); got != nil {
			t.Errorf("Get(%q) = %q, want nil", name, got)
		}
	}
}

// TestExtensionsModel checks SetExt and DelExt against a map.
func TestExtensionsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e Event
		model := map[string]string{}
		name := rapid.StringMatching(`[a-c]{1,2}`)
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				n, v := name.Draw(t, "name"), rapid.StringMatching(`[x-z]{1,3}`).Draw(t, "value")
				e.SetExt([]byte(n), []byte(v))
				model[n] = v
			},
			"del": func(t *rapid.T) {
				n := name.Draw(t, "name")
				e.DelExt(n)
				delete(model, n)
			},
			"": func(t *rapid.T) {
				if len(e.Ext) != len(model) {
					t.Fatalf("%d extensions, want %d", len(e.Ext), len(model))
				}
				for i, a := range e.Ext {
					if model[string(a.Name)] != string(a.Value) || string(e.Get(string(a.Name))) != string(a.Value) {
						t.Fatalf("%s = %s, want %s", a.Name, a.Value, model[string(a.Name)])
					}
					if i > 0 && bytes.Compare(e.Ext[i-1].Name, a.Name) >= 0 {
						t.Fatalf("not sorted at %d", i)
					}
				}
			},
		})
	})
}

func TestCloneSharesNothing(t *testing.T) {
	e, want := full(), full()
	c := e.Clone()
	if !c.Equal(want) {
		t.Fatal("clone differs")
	}
	for _, v := range [][]byte{e.ID, e.Source, e.Type, e.ContentType, e.DataSchema, e.Subject, e.Time, e.Data} {
		clear(v)
	}
	for _, a := range e.Ext {
		clear(a.Name)
		clear(a.Value)
	}
	if !c.Equal(want) {
		t.Fatal("clone changed with the original")
	}
	c.SetExt([]byte("a"), []byte("b"))
	c.ID = append(c.ID, "xx"...) // must not run into the next field of the arena
	if string(c.Source) != string(want.Source) {
		t.Fatalf("source = %q after append to id", c.Source)
	}
	if empty := new(Event).Clone(); !empty.Equal(&Event{}) || empty.Data != nil {
		t.Fatal("clone of the zero event is not the zero event")
	}
}

func TestResetKeepsCapacity(t *testing.T) {
	e := full()
	n := cap(e.Ext)
	e.Reset()
	if !e.Equal(&Event{}) || cap(e.Ext) != n {
		t.Fatalf("after Reset: %+v, cap %d, want empty, cap %d", e, cap(e.Ext), n)
	}
	if old := e.Ext[:1][0]; old.Name != nil || old.Value != nil {
		t.Fatal("Reset keeps old views alive")
	}
}

func TestEqual(t *testing.T) {
	changes := map[string]func(*Event){
		"id": func(e *Event) { e.ID = nil }, "source": func(e *Event) { e.Source = nil },
		"type": func(e *Event) { e.Type = nil }, "content type": func(e *Event) { e.ContentType = nil },
		"schema": func(e *Event) { e.DataSchema = nil }, "subject": func(e *Event) { e.Subject = nil },
		"time": func(e *Event) { e.Time = nil }, "data": func(e *Event) { e.Data = nil },
		"extension gone":  func(e *Event) { e.DelExt("authid") },
		"extension value": func(e *Event) { e.SetExt([]byte("authid"), []byte("x")) },
		"extension name":  func(e *Event) { e.DelExt("authid"); e.SetExt([]byte("authie"), []byte("shop/checkout")) },
	}
	for name, change := range changes {
		e := full()
		change(e)
		if e.Equal(full()) || full().Equal(e) {
			t.Errorf("%s: events are called equal", name)
		}
	}
}
