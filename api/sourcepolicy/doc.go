// Package sourcepolicypb is the rules that allow, deny or replace the sources of a build.
//
// Generated code only. Package solver/policy evaluates them.
package sourcepolicypb
