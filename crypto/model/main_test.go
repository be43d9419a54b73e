package model

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var modelDepth = flag.Int("depth", defaultDepth, "how many steps the model takes")
