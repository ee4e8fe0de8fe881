package main

// This file trades a little processor time for memory: a control plane runs
// beside each test run, on machines that have other things to hold in memory.

import (
	"os"
	"runtime/debug"
)

// limitMemory makes the garbage collector of Go run more often, unless GOGC
// says what the user wants.
func limitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// returnStartupMemory gives back what only the start needed, such as the parsed
// API descriptions. Left to itself the process would keep most of it.
func returnStartupMemory() {
	debug.FreeOSMemory()
}
