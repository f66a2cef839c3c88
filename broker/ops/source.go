package ops

import "github.com/prometheus/client_golang/prometheus"

// Kind says how Prometheus reads a source.
type Kind uint8

// The kinds.
const (
	Counter Kind = iota // only grows
	Gauge               // goes up and down
)

// Source is one metric family, read when it is scraped.
type Source struct {
	Name   string   // full name, as in signet_gate_connections
	Help   string   // one sentence
	Kind   Kind     // Counter or Gauge
	Labels []string // label names; keep their values few
	// Read calls emit once per label combination, with as many values as Labels.
	Read func(emit func(value float64, labels ...string))
}

type collector struct {
	src  *Source
	desc *prometheus.Desc
}

func newCollector(s *Source) *collector {
	return &collector{src: s, desc: prometheus.NewDesc(s.Name, s.Help, s.Labels, nil)}
}

func (c *collector) Describe(out chan<- *prometheus.Desc) { out <- c.desc }

func (c *collector) Collect(out chan<- prometheus.Metric) {
	kind := prometheus.CounterValue
	if c.src.Kind == Gauge {
		kind = prometheus.GaugeValue
	}
	c.src.Read(func(value float64, labels ...string) {
		m, err := prometheus.NewConstMetric(c.desc, kind, value, labels...)
		if err != nil {
			m = prometheus.NewInvalidMetric(c.desc, err)
		}
		out <- m
	})
}
