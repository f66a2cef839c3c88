//go:build !linux

package broker

const defaultDurability = DurabilitySyncAlways
