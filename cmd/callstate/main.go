// Command callstate is an event-sourced call-state engine for Webitel: it turns
// what the PBX says about calls into a durable stream of facts, and publishes the
// CTI model that follows from it on NATS.
package main

import "os"

func main() { os.Exit(realMain(os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)) }
