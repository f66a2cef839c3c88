//go:build !linux

package main

import (
	"context"
	"errors"
)

func insideNamespace() bool { return false }

func canCut() error { return errors.New("power cuts need Linux") }

func inNamespace(context.Context, options, ...string) error { return canCut() }

func powerCuts(context.Context, options) error { return canCut() }

func clusterCuts(context.Context, options) error { return canCut() }

func fullDisks(context.Context, int, options) error { return canCut() }

func clusterDisks(context.Context, int, options) error { return canCut() }
