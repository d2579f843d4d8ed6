package fileop

import (
	"fmt"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// Operand is what an action reads or builds on: nothing, an input of the op, or what an earlier
// action yielded. The zero value is nothing.
type Operand struct {
	// Kind says what Index counts.
	Kind  OperandKind
	Index int
}

// OperandKind is a kind of operand.
type OperandKind uint8

// The kinds of operands.
const (
	Scratch OperandKind = iota
	Input
	Action
)

// Step is one action of a plan.
type Step struct {
	Action *pb.FileAction
	// Base is the tree that is changed, Source the one that is copied from.
	Base, Source Operand
	// Output is the op's output that the changed tree becomes, -1 if none.
	Output int
	// Uses counts the steps that have this one as their base or source.
	Uses int
}

// Plan checks the actions of an op with a number of inputs and returns them in an order in which
// each comes after those that it needs: their own, since an action can't refer to a later one
// without a loop. Operands of kind Action index the returned slice. Outputs are numbered from 0
// without gaps.
func Plan(actions []*pb.FileAction, inputs int) ([]Step, error) {
	p := planner{actions: actions, inputs: inputs, place: make([]int, len(actions))}
	for i := range p.place {
		p.place[i] = unplaced
	}
	for i := range actions {
		if err := p.visit(i); err != nil {
			return nil, err
		}
	}
	if err := checkOutputs(p.steps); err != nil {
		return nil, err
	}
	return p.steps, nil
}

const (
	unplaced = -1
	placing  = -2
)

type planner struct {
	actions []*pb.FileAction
	inputs  int
	// place is where an action stands in steps.
	place []int
	steps []Step
}

// visit places action i after what it needs. It keeps a stack of its own: chains may be long.
func (p *planner) visit(i int) error {
	stack := []int{i}
	for len(stack) > 0 {
		i := stack[len(stack)-1]
		if p.place[i] >= 0 {
			stack = stack[:len(stack)-1]
			continue
		}
		a := p.actions[i]
		needs := []int64{a.Input, a.SecondaryInput}
		if p.place[i] == unplaced {
			p.place[i] = placing
			for _, n := range needs {
				dep, ok, err := p.action(n)
				if err != nil {
					return err
				}
				if !ok || p.place[dep] >= 0 {
					continue
				}
				if p.place[dep] == placing {
					return fmt.Errorf("loop from index %d", dep)
				}
				stack = append(stack, dep)
			}
			continue
		}
		stack = stack[:len(stack)-1]
		step := Step{Action: a, Base: p.operand(a.Input), Source: p.operand(a.SecondaryInput), Output: int(a.Output)}
		for _, o := range []Operand{step.Base, step.Source} {
			if o.Kind == Action {
				p.steps[o.Index].Uses++
			}
		}
		p.place[i] = len(p.steps)
		p.steps = append(p.steps, step)
	}
	return nil
}

// action returns which action an index of the op means; ok is false if it means none.
func (p *planner) action(index int64) (i int, ok bool, err error) {
	total := int64(p.inputs + len(p.actions))
	if index < -1 || index >= total {
		return 0, false, fmt.Errorf("invalid input index %d, %d provided", index, total)
	}
	if index < int64(p.inputs) {
		return 0, false, nil
	}
	return int(index) - p.inputs, true, nil
}

func (p *planner) operand(index int64) Operand {
	switch {
	case index < 0:
		return Operand{}
	case index < int64(p.inputs):
		return Operand{Kind: Input, Index: int(index)}
	default:
		return Operand{Kind: Action, Index: p.place[int(index)-p.inputs]}
	}
}

func checkOutputs(steps []Step) error {
	seen := map[int]bool{}
	for _, s := range steps {
		if s.Output < 0 {
			continue
		}
		if seen[s.Output] {
			return fmt.Errorf("duplicate output %d", s.Output)
		}
		seen[s.Output] = true
	}
	if len(seen) == 0 {
		return fmt.Errorf("no outputs specified")
	}
	for i := range len(seen) {
		if !seen[i] {
			return fmt.Errorf("missing output index %d", i)
		}
	}
	return nil
}
