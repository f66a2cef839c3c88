package adminapi

import (
	"encoding/json"
	"time"
)

// Bounds of schedules.
const (
	MaxSchedulePayload       = 8 << 10 // bytes of the payload
	MaxSchedulesOfPrincipal  = 32
	MinScheduleInterval      = time.Second
	MaxScheduleSpecBytes     = 128
	MaxScheduleNameBytes     = 64
	MaxScheduleIntervalHours = 366 * 24
)

// SchedulePutRequest puts a schedule of the caller, in place of the one of that name.
type SchedulePutRequest struct {
	Name    string `json:"name"`
	Spec    string `json:"spec"`
	Subject string `json:"subject"` // NATS subject of the events
	// Event is a CloudEvent in JSON without id, time, expirytime, data, and what only the
	// broker states.
	Event   json.RawMessage `json:"event"`
	Payload []byte          `json:"payload,omitempty"`
}

// ScheduleLsRequest lists the schedules of the caller, or with All those of the tenant, which
// needs the area.
type ScheduleLsRequest struct {
	All bool `json:"all,omitempty"`
}

// ScheduleRmRequest removes a schedule of the caller, or of another principal, which needs
// the area.
type ScheduleRmRequest struct {
	Name      string `json:"name"`
	Principal string `json:"principal,omitempty"` // without the tenant; empty: the caller
}

// ScheduleRemoved answers it.
type ScheduleRemoved struct{}

// Schedule is one schedule, without the event that it publishes.
type Schedule struct {
	Principal string    `json:"principal"` // without the tenant
	Name      string    `json:"name"`
	Spec      string    `json:"spec"`
	Subject   string    `json:"subject"`
	Type      string    `json:"type,omitempty"` // of the events; empty: the default
	Bytes     int       `json:"bytes"`          // of the payload
	Put       time.Time `json:"put"`
	Next      time.Time `json:"next,omitzero"` // of a cron expression: the next firing after now
}

// ScheduleList answers ScheduleLsRequest, by principal and name.
type ScheduleList struct {
	Schedules []Schedule `json:"schedules"`
}
