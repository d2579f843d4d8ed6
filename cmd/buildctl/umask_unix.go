//go:build !windows

package main

import "syscall"

func clearUmask() { syscall.Umask(0) }
