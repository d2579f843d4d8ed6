package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"text/template"
)

// formatFlag describes --format of the commands that have it.
const formatFlag = "Format the output using the given Go template, e.g, '{{json .}}'"

// parseFormat parses the template of --format. The name json stands for all of the data as JSON.
func parseFormat(text string) (*template.Template, error) {
	if text == "json" {
		text = "{{json .}}"
	}
	return template.New("").Funcs(template.FuncMap{"json": formatJSON}).Parse(text)
}

func formatJSON(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// printFormat executes a template and ends the line.
func printFormat(w io.Writer, t *template.Template, data any) error {
	if err := t.Execute(w, data); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}
