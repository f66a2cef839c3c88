//go:build !linux

package main

import (
	"context"
	"errors"
)

func insideNamespace() bool { return false }

func canCut() error { return errors.New("power cuts need Linux") }

func cutInNamespace(context.Context, options) error { return canCut() }

func powerCuts(context.Context, options) error { return canCut() }

func clusterCuts(context.Context, options) error { return canCut() }
