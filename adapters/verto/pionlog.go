package verto

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/pion/logging"
)

// pionLog takes what pion logs to a slog.Logger. To pion each lost packet of a
// connection that ends is an error; what matters to us comes as a state or an
// error of its own. So its errors are warnings here and the rest is for debugging.
type pionLog struct{ log *slog.Logger }

// NewLogger implements [logging.LoggerFactory].
func (p pionLog) NewLogger(scope string) logging.LeveledLogger {
	return pionLog{p.log.With("pion", scope)}
}

func (p pionLog) at(level slog.Level, msg string) {
	p.log.LogAttrs(context.Background(), level, "media", slog.String("text", msg))
}

func (p pionLog) atf(level slog.Level, format string, args ...any) {
	if p.log.Enabled(context.Background(), level) {
		p.at(level, fmt.Sprintf(format, args...))
	}
}

// pion's trace is a line a packet.
func (pionLog) Trace(string)          {}
func (pionLog) Tracef(string, ...any) {}

func (p pionLog) Debug(msg string)               { p.at(slog.LevelDebug, msg) }
func (p pionLog) Debugf(format string, a ...any) { p.atf(slog.LevelDebug, format, a...) }
func (p pionLog) Info(msg string)                { p.at(slog.LevelDebug, msg) }
func (p pionLog) Infof(format string, a ...any)  { p.atf(slog.LevelDebug, format, a...) }
func (p pionLog) Warn(msg string)                { p.at(slog.LevelDebug, msg) }
func (p pionLog) Warnf(format string, a ...any)  { p.atf(slog.LevelDebug, format, a...) }
func (p pionLog) Error(msg string)               { p.at(slog.LevelWarn, msg) }
func (p pionLog) Errorf(format string, a ...any) { p.atf(slog.LevelWarn, format, a...) }
