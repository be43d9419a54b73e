//go:build !linux

package netwatch

import (
	"context"
	"time"
)

func watchSystem(every time.Duration) func(ctx context.Context, moved func()) { return poll(every) }
