package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestGoldens(t *testing.T) {
	files, err := filepath.Glob("../../testdata/goldens/[0-9]*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasSuffix(name, ".deviations.json") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			problems, err := checkGolden(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range problems {
				t.Error(p)
			}
		})
	}
}
