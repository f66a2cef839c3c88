package clustertest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker"
)

// failWorkerEnv has this test binary be a worker that fails on everything, for the test
// that started it: its value is a failOrder.
const failWorkerEnv = "SIGNET_TEST_FAIL_WORKER"

type failOrder struct{ URLs, CA, Seed string }

// failLine is one delivery, as a worker tells of it before it settles it.
type failLine struct {
	ID        string
	Delivered uint64
	Header    nats.Header
	Payload   []byte
}

// failWorker works until it is killed.
func failWorker(order string, out io.Writer) error {
	var o failOrder
	if err := json.Unmarshal([]byte(order), &o); err != nil {
		return err
	}
	f := &failures{
		ctx: context.Background(), urls: o.URLs, seen: map[string]delivery{},
		st: &broker.State{CA: o.CA, Creds: map[string]string{"worker": o.Seed}},
	}
	var mu sync.Mutex
	lines := json.NewEncoder(out)
	f.tell = func(l failLine) {
		mu.Lock()
		defer mu.Unlock()
		if lines.Encode(l) != nil {
			os.Exit(1) // the test has ended
		}
	}
	var all sync.WaitGroup
	for _, stream := range failStreams {
		all.Go(func() { f.work(f.ctx, stream) })
	}
	all.Wait()
	return nil
}

// workerProcess is a worker that is killed with SIGKILL while it holds deliveries.
type workerProcess struct {
	f    *failures
	cmd  *exec.Cmd
	got  atomic.Int64 // deliveries of this life
	read sync.WaitGroup
}

func (w *workerProcess) start() {
	w.f.t.Helper()
	order, err := json.Marshal(failOrder{w.f.urls, w.f.st.CA, w.f.st.Creds["worker"]})
	ok(w.f.t, err)
	w.cmd = exec.Command(os.Args[0])
	w.cmd.Env, w.cmd.Stderr = append(os.Environ(), failWorkerEnv+"="+string(order)), os.Stderr
	out, err := w.cmd.StdoutPipe()
	ok(w.f.t, err)
	ok(w.f.t, w.cmd.Start())
	w.got.Store(0)
	w.read.Go(func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var l failLine
			if json.Unmarshal(lines.Bytes(), &l) != nil {
				continue // the last one of a life
			}
			w.f.note(l.ID, l.Delivered, delivery{l.Header, l.Payload})
			w.got.Add(1)
		}
	})
}

// kill ends the worker, and returns when all that it told is noted.
func (w *workerProcess) kill() {
	_ = w.cmd.Process.Kill()
	w.read.Wait()
	_ = w.cmd.Wait() // it says that it was killed
}
