package memory_test

import (
	"testing"

	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/memory"
	"github.com/callstate/callstate/store/storetest"
)

func TestStore(t *testing.T) {
	logs := make(map[string]*memory.Store)
	storetest.Run(t, func(_ *testing.T, dir string) store.Store {
		s := logs[dir]
		if s == nil {
			s = memory.New()
		} else {
			s = s.Reopen()
		}
		logs[dir] = s
		return s
	})
}
