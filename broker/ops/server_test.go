package ops

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestProbesAndMetrics(t *testing.T) {
	notReady := errors.New("two streams are behind")
	s, err := New(Config{
		Listen:  "127.0.0.1:0",
		Ready:   func() error { return notReady },
		Started: func() error { return nil },
		Sources: []Source{{
			Name: "signet_test_total", Help: "A test.", Kind: Counter, Labels: []string{"code"},
			Read: func(emit func(float64, ...string)) { emit(3, "40101") },
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	base := "http://" + s.Addr().String()
	for _, c := range []struct {
		path string
		code int
		text string
	}{
		{"/livez", 200, "ok"},
		{"/startupz", 200, "ok"},
		{"/readyz", 503, "two streams are behind"},
		{"/metrics", 200, `signet_test_total{code="40101"} 3`},
		{"/debug/pprof/", 404, ""},
		{"/debug/vars", 404, ""},
	} {
		if code, body := get(t, base+c.path); code != c.code || !strings.Contains(body, c.text) {
			t.Errorf("%s: got %d %q, want %d with %q", c.path, code, body, c.code, c.text)
		}
	}
}

func TestPortInUseStopsTheStart(t *testing.T) {
	ok := func() error { return nil }
	s, err := New(Config{Listen: "127.0.0.1:0", Ready: ok, Started: ok})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := New(Config{Listen: s.Addr().String(), Ready: ok, Started: ok}); err == nil {
		t.Fatal("a second server on the same port started")
	}
}
