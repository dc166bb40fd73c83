package main

import (
	"fmt"
	"log/slog"
	"regexp"
)

// What is logged is read by more people than calls are, and kept elsewhere: numbers
// are masked in it as by --mask, unless --log-numbers says otherwise. It is done
// where lines are made, by the attribute's key, so that no part has to think of it;
// what a PBX says in an error is masked like everything else.

// logPlainKeys are the attributes that hold no number of a person's.
var logPlainKeys = map[string]bool{
	slog.LevelKey: true, "dir": true, "data": true, "exported_to": true, "url": true, "server": true, "log_id": true, "id": true,
	"stream": true, "bucket": true, "prefix": true, "part": true, "adapter": true, "domain": true, "mode": true, "pbx": true, "reason": true,
}

// logPlain are the numbers in a text that are no person's either: ids, times,
// durations, addresses, and those that say what they are.
var logPlain = regexp.MustCompile(opaqueForm +
	`|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?` +
	`|\b\d+(\.\d+)?(ns|µs|ms|s|m|h)\b` +
	`|\b\d{1,3}(\.\d{1,3}){3}(:\d{1,5})?\b|\[[0-9a-fA-F:]*:[0-9a-fA-F:]*\](:\d{1,5})?` +
	`|(//|tcp |lookup )[A-Za-z][^/\s@]*` +
	`|\b(position|event|events|page|byte|bytes|segment|version|code|close|status|sequence|cid)[ :=]+\d+( to \d+)?\b` +
	`|\b\d+ (bytes|events|messages|frames|calls)\b`)

var logNumbers = regexp.MustCompile(`(` + logPlain.String() + `)|` + numbers.String())

// maskLogText masks the numbers in a line of the log.
func maskLogText(s string) string {
	return logNumbers.ReplaceAllStringFunc(s, func(m string) string {
		if logPlain.FindString(m) == m {
			return m
		}
		return maskDigits(m)
	})
}

// maskAttr is a [slog.HandlerOptions.ReplaceAttr].
func maskAttr(_ []string, a slog.Attr) slog.Attr {
	if logPlainKeys[a.Key] {
		return a
	}
	mask := func(s string) string {
		if maskKinds[a.Key] != maskAsText {
			return maskString(a.Key, s)
		}
		return maskLogText(s)
	}
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(mask(a.Value.String()))
	case slog.KindAny:
		// Whatever it is, an error or a list, the handler would write its text.
		a.Value = slog.StringValue(mask(fmt.Sprint(a.Value.Any())))
	}
	return a
}

// logger writes messages for people to standard error.
func (e *env) logger() *slog.Logger {
	o := slog.HandlerOptions{Level: &e.level}
	if !e.logNumbers {
		o.ReplaceAttr = maskAttr
	}
	return slog.New(slog.NewTextHandler(e.errw, &o))
}
