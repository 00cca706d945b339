import re

from seed_graph import seed, traced

import tinygrad_sm as tg
import viz


def test_lines_of_the_seed():
    _, loss = seed()
    lines = viz.draw(traced(loss)).mermaid.splitlines()
    assert lines[0] == "flowchart TB"
    assert '  subgraph g0["softmax"]' in lines
    assert any(line.strip().startswith('n1["e = exp(a)<br/>(3,) float64<br/>value: 7.389')
               for line in lines)  # fmt: skip
    assert '  n1 -->|"numerator ∂: −0.1353 0 0"| n3' in lines
    assert sum(line.strip() == "end" for line in lines) == 2
    assert "  class n8 output" in lines


def test_labels_hold_nothing_that_mermaid_reads():
    hostile = '"]; end\n%% `md` **b** <b>x</b> | {y} #35; \\n - 1. item _u_'
    with tg.group(hostile):
        y = tg.exp(tg.Tensor(1.0, name=hostile))
    text = viz.draw(y).mermaid
    for label in re.findall(r'"(.*?)"', text):
        plain = re.sub(r"#\d+;|<br/>", "", label)
        assert not set(plain) & set('"`*<>|{}[]#;%_\\-')
    code = re.sub(r'"[^"]*"', "L", text)
    assert all(
        re.fullmatch(
            r"flowchart TB|%%.*|\s*subgraph g\d+\[L\]|\s*end|\s*n\d+[\[(/]+L[\])/]+:::\w+"
            r"|\s*n\d+ -->(\|L\|)? n\d+|\s*classDef .*|\s*class n\d+ \w+",
            line,
        )
        for line in code.splitlines()
    ), code
