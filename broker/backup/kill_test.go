package backup_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/adminapi"
)

// envChild makes the test binary a broker of its own process, which can be killed.
const envChild = "SIGNET_TEST_BROKER"

func TestMain(m *testing.M) {
	if config := os.Getenv(envChild); config != "" {
		fmt.Fprintln(os.Stderr, "child:", child(config))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// child runs a broker until it is killed.
func child(config string) error {
	cfg, err := broker.LoadConfig(config, nil)
	if err != nil {
		return err
	}
	cfg.Ops.Listen = "off"
	b, err := broker.New(cfg, "test", zerolog.Nop())
	if err != nil {
		return err
	}
	if err := b.Start(context.Background()); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "ready", b.Addr())
	<-b.Done()
	return b.Err()
}

// process starts a broker as a process and returns its address.
func process(t *testing.T, st *broker.State) (cmd *exec.Cmd, url string) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envChild+"="+st.Config)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if err != nil || !ok {
		t.Fatalf("the broker said %q: %v", line, err)
	}
	return cmd, "tls://" + addr
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill() // it may have ended
	_ = cmd.Wait()
}

// TestKillInARestore kills -9 a broker at several moments of a restore. After the
// next start there is everything or nothing, and where there is nothing the restore
// works.
func TestKillInARestore(t *testing.T) {
	a := start(t, "")
	fill(t, a)
	j := js(t, a, "app")
	data := make([]byte, 512<<10)
	for range 40 {
		_, _ = rand.Read(data) // it never fails
		must(j.Publish(t.Context(), "orders.noise", data))(t)
	}
	file := save(t, a)
	whole, none := 0, 0
	for _, after := range []time.Duration{0, 20 * time.Millisecond, 80 * time.Millisecond, 300 * time.Millisecond} {
		dir := sibling(t, a)
		st, err := broker.Setup{Dir: dir, Name: "test", Listen: "127.0.0.1:0", Dev: true, Policy: shop}.Run()
		if err != nil {
			t.Fatal(err)
		}
		cmd, url := process(t, st)
		begin(t, url, st, file)
		<-time.After(after) // the moment is what is tried out
		kill(cmd)

		b := brokertest.New(t, brokertest.Options{Policy: shop, Change: quick, Dir: dir})
		var full, empty int
		for _, stream := range []string{"ORDERS", "BILLS", "KV_prices", "OBJ_scans", "DLQ"} {
			if state(t, b, stream).LastSeq > 0 {
				full++
			} else {
				empty++
			}
		}
		switch {
		case full == 5:
			whole++
		case empty == 5:
			none++
			if _, err := restore(t, b, file); err != nil {
				t.Fatalf("killed after %s: restore again: %v", after, err)
			}
		default:
			t.Fatalf("killed after %s: %d streams are there and %d are not", after, full, empty)
		}
		verified(t, b, 140)
		left, err := os.ReadDir(dir + "/restores")
		if err == nil && len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	t.Logf("%d times everything was there, %d times nothing", whole, none)
	if none == 0 {
		t.Error("no kill came before the end: the file must be larger")
	}
}

// begin sends a backup and returns when it is being restored.
func begin(t *testing.T, url string, st *broker.State, file []byte) {
	t.Helper()
	c, err := client.Connect(t.Context(), url, client.WithNkeySeedFile(st.Creds["keeper"]), client.WithTLSRoots(st.CA), client.WithRoot(st.Root))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	api := func(verb string, q, a any) {
		t.Helper()
		if err := c.API(t.Context(), "backup", verb, q, a); err != nil {
			t.Fatalf("%s: %v", verb, err)
		}
	}
	var opened adminapi.BackupOpened
	api("restore", adminapi.RestoreRequest{Bytes: int64(len(file))}, &opened)
	part := make([]byte, adminapi.MaxChunkBytes)
	for r, offset := bytes.NewReader(file), int64(0); ; {
		n, err := r.Read(part)
		if err != nil {
			break
		}
		api("write", adminapi.RestoreWriteRequest{Session: opened.Session, Offset: offset, Data: part[:n]}, nil)
		offset += int64(n)
	}
	var p adminapi.RestoreProgress
	for api("apply", adminapi.BackupSessionRequest{Session: opened.Session}, &p); p.Phase == adminapi.RestoreVerifying; {
		api("progress", adminapi.RestoreProgressRequest{Session: opened.Session, WaitMs: 1}, &p)
	}
}
