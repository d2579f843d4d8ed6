package registry

import (
	"context"
	"strings"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// logged returns ctx for calls of containerd's resolver: it logs to where ctx logs, without the
// signed URLs that registries redirect to.
func logged(ctx context.Context) context.Context {
	entry := log.G(ctx)
	base := entry.Logger
	l := &logrus.Logger{
		Out: base.Out, Formatter: base.Formatter, ReportCaller: base.ReportCaller,
		Level: base.GetLevel(), ExitFunc: base.ExitFunc, Hooks: logrus.LevelHooks{},
	}
	l.AddHook(redactHook{})
	for level, hooks := range base.Hooks {
		l.Hooks[level] = append(l.Hooks[level], hooks...)
	}
	return log.WithLogger(ctx, l.WithFields(entry.Data))
}

// redactHook hides signed URLs.
type redactHook struct{}

func (redactHook) Levels() []logrus.Level { return logrus.AllLevels }

func (redactHook) Fire(e *logrus.Entry) error {
	for k, v := range e.Data {
		if err, ok := v.(error); ok {
			e.Data[k] = redact(err)
		}
		if strings.HasPrefix(k, "response.header.") && strings.HasSuffix(k, "location") {
			e.Data[k] = "REDACTED"
		}
	}
	return nil
}
