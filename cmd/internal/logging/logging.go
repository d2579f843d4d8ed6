// Package logging sets up the log of the programs, which libraries write to as well.
package logging

import (
	"fmt"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// SetUp chooses the format of the log, text or json, and its level, one of logrus. It is called
// once, before anything is logged.
func SetUp(format, level string) error {
	switch log.OutputFormat(format) {
	case log.TextFormat, log.JSONFormat:
	default:
		return fmt.Errorf("unsupported log type %q", format)
	}
	if _, err := logrus.ParseLevel(level); err != nil {
		return fmt.Errorf("unsupported log level %q", level)
	}
	if err := log.SetFormat(log.OutputFormat(format)); err != nil {
		return err
	}
	log.L.Logger.SetFormatter(discreet{log.L.Logger.Formatter})
	return log.SetLevel(level)
}

// harmless are messages of libraries about what is no trouble. The content store warns each time it
// is opened on a file system without fs-verity, which the programs do not use.
var harmless = map[string]bool{"failed check for fsverity support": true}

// discreet writes what is harmless only where everything is wanted.
type discreet struct{ logrus.Formatter }

// Format returns nothing for what is not to be written.
func (d discreet) Format(e *logrus.Entry) ([]byte, error) {
	if harmless[e.Message] && !e.Logger.IsLevelEnabled(logrus.DebugLevel) {
		return nil, nil
	}
	return d.Formatter.Format(e)
}
