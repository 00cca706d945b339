// The page that steps through the chain rule. No library, no build step: this file as it stands.
//
//   1. Formulas   a rule is one line of text, which is both computed and shown
//   2. The table  each operation's forward and its vjps, as in tinygrad_sm/engine/rules.py
//   3. The sweep  forward, backward, the order of the steps, the paths, the mistakes
//   4. State      what is chosen, and its copy in the address
//   5. Writing    texts, numbers, MathML
//   6. Views      the pictures, the card of a step, inputs, paths, questions, broken engines
//   7. Controls   buttons, keys, the start

/**
 * @typedef {{shape: number[], data: Float64Array}} Arr
 * @typedef {{op: string, title: string, name: string, shape: number[], inputs?: number[],
 *            params?: Object | null}} Node
 * @typedef {{nodes: Node[], output: number, maximum?: number[]}} Graph
 * @typedef {{values: Arr[], gradients: Object<number, Arr>, sent: Object<string, Arr>}} Run
 *          `sent` has what goes over each edge, by "consumer-argument"
 * @typedef {{phase: "start" | "forward" | "seed" | "backward", node?: number}} Step
 */

// 1. Formulas -------------------------------------------------------------------------------------

/** Read a formula such as "−g · z / y" into nested lists [sign, left, right], letters as text. */
function parse(text) {
  const tokens = text.match(/[\d.]+|\p{L}\w*ᵀ?|\S/gu);
  let at = 0;
  const next = (...wanted) => wanted.includes(tokens[at]) && tokens[at++];
  const chain =
    (part, ...signs) =>
    () => {
      let left = part();
      for (let sign; (sign = next(...signs));) left = [sign, left, part()];
      return left;
    };
  const inside = (kind, end) => {
    const x = sum();
    next(end);
    return [kind, x];
  };
  const atom = () => {
    if (next("(")) return inside("()", ")");
    if (next("[")) return inside("[]", "]");
    if (next("|")) return inside("||", "|");
    const word = tokens[at++];
    if (!next("(")) return word;
    const call = ["call", word, sum()];
    while (next(",")) call.push(sum());
    next(")");
    return call;
  };
  const power = () => {
    const base = atom();
    return next("^") ? ["^", base, unary()] : base;
  };
  const unary = () => (next("−") ? ["neg", unary()] : power());
  const product = chain(unary, "·", "/", "@");
  const sum = chain(product, "+", "−", ">", "<", "=", "≠");
  return sum();
}

const FUNCTIONS = {
  "+": (a, b) => a + b,
  "−": (a, b) => a - b,
  "·": (a, b) => a * b,
  "/": (a, b) => a / b,
  "^": (a, b) => a ** b,
  ">": (a, b) => +(a > b),
  "<": (a, b) => +(a < b),
  "=": (a, b) => +(a === b),
  "≠": (a, b) => +(a !== b),
  neg: (a) => -a,
  "()": (a) => a,
  "[]": (a) => a,
  "||": Math.abs,
  exp: Math.exp,
  log: Math.log,
  log1p: Math.log1p,
  expm1: Math.expm1,
  log2: Math.log2,
  log10: Math.log10,
  sqrt: Math.sqrt,
  sin: Math.sin,
  cos: Math.cos,
  tan: Math.tan,
  arctan: Math.atan,
  sinh: Math.sinh,
  cosh: Math.cosh,
  tanh: Math.tanh,
  sign: Math.sign,
  max: (a, b) => (a !== a || b !== b ? NaN : Math.max(a, b)),
  min: (a, b) => (a !== a || b !== b ? NaN : Math.min(a, b)),
  σ: (x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x))),
  where: (x, y, w) => (x ? y : w),
};

/** Make a function of the letters' numbers, {x: 2, g: 1}, of a parsed formula. */
function compiled(formula) {
  if (typeof formula === "string") {
    const number = Number(formula);
    return Number.isNaN(number) ? (letters) => letters[formula] : () => number;
  }
  const [kind, ...rest] = formula[0] === "call" ? formula.slice(1) : formula;
  const f = FUNCTIONS[kind];
  const [a, b, c] = rest.map(compiled);
  if (c) return (letters) => f(a(letters), b(letters), c(letters));
  return b ? (letters) => f(a(letters), b(letters)) : (letters) => f(a(letters));
}

// 2. The table ------------------------------------------------------------------------------------

const count = (shape) => shape.reduce((a, b) => a * b, 1);

/** @returns {Arr} */
const array = (shape, data) => ({ shape, data: Float64Array.from(data, Number) });

const remembered = new Map();

/** For each element of an array of shape `to`: which element of shape `from` is repeated there. */
function places(from, to) {
  const key = `${from}>${to}`;
  if (remembered.has(key)) return remembered.get(key);
  const found = new Int32Array(count(to));
  const lead = to.length - from.length;
  for (let i = 0; i < found.length; i++) {
    let [rest, place, step] = [i, 0, 1];
    for (let axis = to.length - 1; axis >= 0; axis--) {
      const at = rest % to[axis];
      rest = (rest - at) / to[axis];
      const length = axis < lead ? 1 : from[axis - lead];
      if (length > 1) place += step * at;
      step *= length;
    }
    found[i] = place;
  }
  remembered.set(key, found);
  return found;
}

/** Apply a function of letters to arrays, element by element, each repeated to fill the shape. */
function each(f, shape, letters) {
  const names = Object.keys(letters);
  const from = names.map((name) => places(letters[name].shape, shape));
  const one = {};
  const data = new Float64Array(count(shape));
  for (let i = 0; i < data.length; i++) {
    names.forEach((name, k) => (one[name] = letters[name].data[from[k][i]]));
    data[i] = f(one);
  }
  return { shape, data };
}

/** Undo the repeating: add up what belongs to one element of an array of this shape. */
function summedTo(x, shape) {
  if (String(x.shape) === String(shape)) return x;
  const data = new Float64Array(count(shape));
  const place = places(shape, x.shape);
  x.data.forEach((value, i) => (data[place[i]] += value));
  return { shape, data };
}

/** Which elements of the result an element of an operand goes into. */
const users = (place, j) => [...place.keys()].filter((i) => place[i] === j);

/**
 * A row of the table: `shows` and `rules` are formulas of the operands x, y, w, the result z and
 * its cotangent g; forward(operands, node) gives the result's elements, pull(g, z, operands, node,
 * i) what goes to operand i, feeds(j, operands, node, i) where its element j goes, and
 * letters(…) what the rule of operand i is computed from, element by element.
 */
function elementwise(shows, ...rules) {
  const forward = compiled(parse(shows));
  const backward = rules.map((rule) => rule && compiled(parse(rule)));
  const given = (operands) => Object.fromEntries(operands.map((x, i) => ["xyw"[i], x]));
  return {
    shows,
    rules,
    each: true,
    forward: (operands, node) => each(forward, node.shape, given(operands)),
    letters: (g, z, operands) => ({ g, z, ...given(operands) }),
    pull(g, z, operands, node, i) {
      const all = each(backward[i], node.shape, this.letters(g, z, operands));
      return summedTo(all, operands[i].shape);
    },
    feeds: (j, operands, node, i) => users(places(operands[i].shape, node.shape), j),
  };
}

/** What makes one number of many; in its rule n counts what it was made of. */
function reduction(shows, rule, start, put, finish = (z) => z, ties = false) {
  const backward = compiled(parse(rule));
  const kept = (x, node) => x.shape.map((n, i) => (node.params.axes.includes(i) ? 1 : n));
  return {
    shows,
    rules: [rule],
    forward([x], node) {
      const data = new Float64Array(count(node.shape)).fill(start);
      const place = places(kept(x, node), x.shape);
      x.data.forEach((value, i) => (data[place[i]] = put(data[place[i]], value)));
      const n = x.data.length / data.length;
      return { shape: node.shape, data: data.map((value) => finish(value, n)) };
    },
    letters(g, z, [x], node) {
      const shape = kept(x, node);
      const [back, out] = [g, z].map(({ data }) => ({ shape, data }));
      const n = { shape, data: new Float64Array(out.data.length) };
      places(shape, x.shape).forEach(
        (place, i) => (n.data[place] += ties ? +(x.data[i] === out.data[place]) : 1),
      );
      return { g: back, z: out, x, n };
    },
    pull(g, z, operands, node) {
      return each(backward, operands[0].shape, this.letters(g, z, operands, node));
    },
    feeds: (j, [x], node) => [places(kept(x, node), x.shape)[j]],
  };
}

/** What only moves elements; `positions` says where each comes from, all operands in a row. */
const moved = {
  shows: "move(x)",
  rules: [],
  forward(operands, node) {
    const all = operands.flatMap((x) => [...x.data]);
    return array(
      node.shape,
      node.params.positions.map((at) => all[at]),
    );
  },
  start: (operands, i) => operands.slice(0, i).reduce((sum, x) => sum + x.data.length, 0),
  pull(g, z, operands, node, i) {
    const data = new Float64Array(operands[i].data.length);
    const start = this.start(operands, i);
    node.params.positions.forEach(
      (at, k) => at >= start && at < start + data.length && (data[at - start] += g.data[k]),
    );
    return { shape: operands[i].shape, data };
  },
  feeds(j, operands, node, i) {
    const at = j + this.start(operands, i);
    return [...node.params.positions.keys()].filter((k) => node.params.positions[k] === at);
  },
};

/** The product of matrices; a vector is a row on the left, a column on the right. */
const matmul = {
  shows: "x @ y",
  rules: ["g @ yᵀ", "xᵀ @ g"],
  sizes: ([x, y]) => {
    const inner = x.shape.at(-1);
    return [x.data.length / inner, inner, y.data.length / inner];
  },
  forward(operands, node) {
    const [x, y] = operands.map(({ data }) => data);
    const [rows, inner, columns] = this.sizes(operands);
    const z = new Float64Array(rows * columns);
    for (let i = 0; i < rows; i++)
      for (let k = 0; k < inner; k++)
        for (let j = 0; j < columns; j++)
          z[i * columns + j] += x[i * inner + k] * y[k * columns + j];
    return { shape: node.shape, data: z };
  },
  pull(g, z, operands, node, which) {
    const [x, y] = operands.map(({ data }) => data);
    const [rows, inner, columns] = this.sizes(operands);
    const data = new Float64Array(operands[which].data.length);
    for (let i = 0; i < rows; i++)
      for (let k = 0; k < inner; k++)
        for (let j = 0; j < columns; j++) {
          const back = g.data[i * columns + j];
          if (which === 0) data[i * inner + k] += back * y[k * columns + j];
          else data[k * columns + j] += back * x[i * inner + k];
        }
    return { shape: operands[which].shape, data };
  },
  feeds(at, operands, node, which) {
    const [rows, inner, columns] = this.sizes(operands);
    if (which === 0)
      return Array.from({ length: columns }, (_, j) => Math.floor(at / inner) * columns + j);
    return Array.from({ length: rows }, (_, i) => i * columns + (at % columns));
  },
};

/** Softmax and cross-entropy in one: s is Σy, and p what softmax gives. */
const softmaxWithLoss = {
  shows: "SoftmaxWithLoss(x, y)",
  rules: ["g · (s · p − y)"],
  rows: ({ shape, data }) => {
    const n = shape.at(-1);
    return Array.from({ length: data.length / n }, (_, i) => data.subarray(i * n, i * n + n));
  },
  forward([a, y], node) {
    const { divisor, temperature } = node.params;
    const targets = this.rows(y);
    const losses = this.rows(a).map((row, i) => {
      const z = row.map((x) => x / temperature);
      const top = Math.max(...z);
      const rest = Math.log(z.reduce((sum, x) => sum + Math.exp(x - top), 0));
      return targets[i].reduce(
        (sum, weight, j) => sum + (weight && weight * (rest + (top - z[j]))),
        0,
      );
    });
    return array(node.shape, [losses.reduce((sum, x) => sum + x, 0) / divisor]);
  },
  letters(g, z, [a, y], node) {
    const { divisor, temperature } = node.params;
    const p = { shape: a.shape, data: a.data.slice() };
    this.rows(p).forEach((row) => {
      const top = Math.max(...row);
      row.forEach((x, j) => (row[j] = Math.exp((x - top) / temperature)));
      const total = row.reduce((sum, x) => sum + x, 0);
      row.forEach((x, j) => (row[j] = x / total));
    });
    const sums = this.rows(y).map((row) => row.reduce((sum, x) => sum + x, 0));
    const s = array([...a.shape.slice(0, -1), 1], sums);
    const shared = array([1], [g.data[0] / divisor / temperature]);
    return { g: shared, p, y, s };
  },
  pull(g, z, operands, node) {
    return each(
      compiled(parse(this.rules[0])),
      operands[0].shape,
      this.letters(g, z, operands, node),
    );
  },
  feeds: () => [0],
};

const TABLE = {
  add: elementwise("x + y", "g", "g"),
  sub: elementwise("x − y", "g", "−g"),
  mul: elementwise("x · y", "g · y", "g · x"),
  div: elementwise("x / y", "g / y", "−g · z / y"),
  neg: elementwise("−x", "−g"),
  pow: elementwise("x ^ y", "g · y · x ^ (y − 1)", "g · z · log(x)"),
  exp: elementwise("exp(x)", "g · z"),
  log: elementwise("log(x)", "g / x"),
  log1p: elementwise("log1p(x)", "g / (1 + x)"),
  expm1: elementwise("expm1(x)", "g · exp(x)"),
  log2: elementwise("log2(x)", "g / (x · log(2))"),
  log10: elementwise("log10(x)", "g / (x · log(10))"),
  exp2: elementwise("2 ^ x", "g · z · log(2)"),
  sqrt: elementwise("sqrt(x)", "g / (2 · z)"),
  tanh: elementwise("tanh(x)", "g · (1 − z · z)"),
  sigmoid: elementwise("σ(x)", "g · z · σ(−x)"),
  sin: elementwise("sin(x)", "g · cos(x)"),
  cos: elementwise("cos(x)", "−g · sin(x)"),
  tan: elementwise("tan(x)", "g · (1 + z · z)"),
  arctan: elementwise("arctan(x)", "g / (1 + x · x)"),
  sinh: elementwise("sinh(x)", "g · cosh(x)"),
  cosh: elementwise("cosh(x)", "g · sinh(x)"),
  relu: elementwise("max(x, 0)", "g · [x > 0]"),
  abs: elementwise("|x|", "g · sign(x)"),
  maximum: elementwise("max(x, y)", "g · ([x > y] + [x = y] / 2)", "g · ([y > x] + [x = y] / 2)"),
  minimum: elementwise("min(x, y)", "g · ([x < y] + [x = y] / 2)", "g · ([y < x] + [x = y] / 2)"),
  where: elementwise("where(x, y, w)", "", "g · [x ≠ 0]", "g · [x = 0]"),
  astype: elementwise("x", "g"),
  sum: reduction("Σ(x)", "g", 0, FUNCTIONS["+"]),
  mean: reduction("Σ(x) / n", "g / n", 0, FUNCTIONS["+"], (z, n) => z / n),
  max: reduction("max(x)", "g · [x = z] / n", -Infinity, FUNCTIONS.max, undefined, true),
  min: reduction("min(x)", "g · [x = z] / n", Infinity, FUNCTIONS.min, undefined, true),
  reshape: moved,
  transpose: moved,
  broadcast_to: moved,
  getitem: moved,
  take_along_axis: moved,
  concatenate: moved,
  matmul,
  SoftmaxWithLoss: softmaxWithLoss,
};

// 3. The sweep ------------------------------------------------------------------------------------

/** Whether the table has all that a graph is made of; else the engine's own numbers are shown. */
const known = (graph) =>
  graph.nodes.every((node) => !node.inputs || (TABLE[node.op] && node.params !== null));

/** For each node whether backward has to reach it. */
function wanted(graph) {
  const found = [];
  for (const node of graph.nodes)
    found.push(node.op === "leaf" || (node.inputs ?? []).some((i) => found[i]));
  return found;
}

/** The value of every node. `inputs` has the elements of leaves and constants, by id. */
function forward(graph, inputs) {
  const values = [];
  graph.nodes.forEach((node, id) => {
    if (node.inputs)
      values[id] = TABLE[node.op].forward(
        node.inputs.map((i) => values[i]),
        node,
      );
    else if (id === graph.maximum?.[0]) values[id] = largest(values[graph.maximum[1]], node.shape);
    else values[id] = array(node.shape, inputs[id]);
  });
  return values;
}

/**
 * Send a cotangent back from a node, to all that it was computed from.
 * @param {{overwrites?: boolean, pull?: Function}} mistake what a wrong engine does instead
 * @returns {{gradients: Object<number, Arr>, sent: Object<string, Arr>}}
 */
function backward(graph, values, from, cotangent, mistake = {}) {
  const wants = wanted(graph);
  const gradients = { [from]: cotangent };
  const sent = {};
  for (let id = from; id >= 0; id--) {
    const node = graph.nodes[id];
    if (!node.inputs || !gradients[id]) continue;
    const operands = node.inputs.map((i) => values[i]);
    node.inputs.forEach((source, i) => {
      if (!wants[source]) return;
      let back = TABLE[node.op].pull(gradients[id], values[id], operands, node, i);
      back = { shape: operands[i].shape, data: back.data };
      back = mistake.pull?.(back, id, i, gradients) ?? back;
      sent[`${id}-${i}`] = back;
      const adds = gradients[source] && !mistake.overwrites;
      gradients[source] = adds ? added(gradients[source], back) : back;
    });
  }
  return { gradients, sent };
}

/** Both, from the cotangent of the output on: 1, unless backward was given another. */
function run(graph, inputs, mistake) {
  const values = forward(graph, inputs);
  return { values, ...backward(graph, values, graph.output, seed(graph), mistake) };
}

const seed = ({ nodes, output, seed: given }) => {
  const { shape } = nodes[output];
  return array(shape, given ?? Array(count(shape)).fill(1));
};

/** Zeros like an array, but 1 at one element. */
const oneHot = ({ shape, data }, k = 0) => ({ shape, data: data.map((_, i) => +(i === k)) });

const added = (a, b) => ({ shape: a.shape, data: a.data.map((x, i) => x + b.data[i]) });

/** The largest of each row, which the shifted forms take off: no part of what is differentiated. */
function largest(x, shape) {
  const data = new Float64Array(count(shape)).fill(-Infinity);
  const place = places(shape, x.shape);
  x.data.forEach((value, i) => (data[place[i]] = Math.max(data[place[i]], value)));
  return { shape, data };
}

/** The engine's numbers, as they are in the file: what an edge sent is the gradient if not said. */
function recorded(graph, record) {
  const shaped = (id, numbers) => array(graph.nodes[id].shape, numbers);
  const found = { values: [], gradients: {}, sent: {} };
  graph.nodes.forEach((node, id) => {
    found.values[id] = shaped(id, record.values[id]);
    if (record.gradients[id]) found.gradients[id] = shaped(id, record.gradients[id]);
  });
  graph.nodes.forEach((node, id) =>
    node.inputs?.forEach((source, i) => {
      const numbers = record.sent[`${id}-${i}`] ?? record.gradients[source];
      if (numbers && record.gradients[id]) found.sent[`${id}-${i}`] = shaped(source, numbers);
    }),
  );
  return found;
}

/** How far two runs are apart, relative to the largest number of each array. */
function difference(mine, theirs) {
  let worst = 0;
  const compare = (a, b) => {
    const size = Math.max(1e-300, ...b.data.filter(Number.isFinite).map(Math.abs));
    a.data.forEach((x, i) => {
      const y = b.data[i];
      if (Object.is(x, y) || x === y) return;
      worst = Math.max(worst, Number.isFinite(x - y) ? Math.abs(x - y) / size : Infinity);
    });
  };
  for (const part of ["values", "gradients", "sent"])
    for (const key of Object.keys(theirs[part])) compare(mine[part][key], theirs[part][key]);
  return worst;
}

/** The steps of a graph, and at which of them each number becomes known. */
function scheduled(graph, shown) {
  const wants = wanted(graph);
  /** @type {Step[]} */
  const steps = [{ phase: "start" }];
  const at = { value: [], sent: {}, begun: [], complete: [] };
  graph.nodes.forEach((node, id) => {
    at.value[id] = 0;
    if (!node.inputs) return;
    at.value[id] = steps.length;
    if (shown(id)) steps.push({ phase: "forward", node: id });
  });
  const loss = steps.length;
  steps.push({ phase: "seed", node: graph.output });
  at.begun[graph.output] = at.complete[graph.output] = loss;
  for (let id = graph.output; id >= 0; id--) {
    if (!wants[id] || at.begun[id] === undefined) continue;
    if (id !== graph.output) at.complete[id] = steps.length - 1;
    (graph.nodes[id].inputs ?? []).forEach((source, i) => {
      if (!wants[source]) return;
      at.sent[`${id}-${i}`] = steps.length;
      at.begun[source] ??= steps.length;
    });
    if (shown(id)) steps.push({ phase: "backward", node: id });
  }
  return { steps, at, loss };
}

/** Edges by where they come from: for each node the [consumer, argument] that use it. */
function consumers(graph) {
  const found = graph.nodes.map(() => []);
  graph.nodes.forEach((node, id) =>
    node.inputs?.forEach((source, i) => found[source].push([id, i])),
  );
  return found;
}

/**
 * Every path from element j of a node to element k of another, with the factor of each edge; and
 * whether there are more.
 * @returns {{paths: {stops: number[][], edges: string[], factors: number[]}[], more: boolean}}
 */
function paths(graph, values, [from, j], [to, k], most = 60) {
  const uses = consumers(graph);
  const wants = wanted(graph);
  const found = [];
  const leads = new Map(); // whether an element leads to the end at all
  const onward = ([node, element]) =>
    uses[node].flatMap(([user, i]) => {
      if (user > to || !wants[user]) return [];
      const operands = graph.nodes[user].inputs.map((x) => values[x]);
      const row = TABLE[graph.nodes[user].op];
      return row.feeds(element, operands, graph.nodes[user], i).map((out) => [user, out, i]);
    });
  const reaches = ([node, element]) => {
    if (node === to) return element === k;
    const key = `${node}:${element}`;
    if (!leads.has(key)) leads.set(key, onward([node, element]).some(reaches));
    return leads.get(key);
  };
  const factor = ([, element], [user, out, i]) => {
    const node = graph.nodes[user];
    const operands = node.inputs.map((x) => values[x]);
    return TABLE[node.op].pull(oneHot(values[user], out), values[user], operands, node, i).data[
      element
    ];
  };
  const walk = (stop, stops, edges, factors) => {
    if (found.length > most) return;
    if (stop[0] === to) return void found.push({ stops, edges, factors });
    for (const next of onward(stop).filter(reaches))
      walk(
        [next[0], next[1]],
        [...stops, [next[0], next[1]]],
        [...edges, `${next[0]}-${next[2]}`],
        [...factors, factor(stop, next)],
      );
  };
  if (reaches([from, j])) walk([from, j], [[from, j]], [], []);
  return { paths: found.slice(0, most), more: found.length > most };
}

/** The derivatives of element k of a node by each element of a leaf: a row of the Jacobian. */
function derivatives(graph, values, [node, k], leaf) {
  const { gradients } = backward(graph, values, node, oneHot(values[node], k));
  return gradients[leaf]?.data ?? new Float64Array(values[leaf].data.length);
}

// 4. State ----------------------------------------------------------------------------------------

const data = JSON.parse(document.getElementById("lesson").textContent);

/**
 * What is chosen. `inputs` has the elements of what can be changed, by node id; `path` what the
 * view of the paths leads from and to, as [node, element] each.
 */
const state = {
  lang: data.lang,
  theme: "auto",
  preset: data.presets[0].key,
  lesson: data.presets[0].lesson,
  inputs: {},
  step: 0,
  view: "step",
  mistake: "",
  path: null,
};

const lesson = () => data.lessons[state.lesson];
const recordOf = (preset, key) => data.records.find((r) => r.preset === preset && r.lesson === key);

/** The inputs of a preset in one of its lessons: leaves, target, temperature. */
function given(preset, key) {
  const record = recordOf(preset, key) ?? data.records.find((r) => r.lesson === key);
  const ids = changeable(data.lessons[key]);
  return Object.fromEntries(ids.map((id) => [id, [...record.composite.values[id]].map(Number)]));
}

/** Ids of the inputs that can be changed. */
function changeable({ graph, roles }) {
  const leaves = [...graph.nodes.keys()].filter((id) => graph.nodes[id].op === "leaf");
  return [...leaves, roles.y, roles.temperature].filter((id) => id !== undefined);
}

/** All inputs of the lesson's graph: what was changed, and the constants as they are. */
function inputs() {
  const record =
    recordOf(state.preset, state.lesson) ?? data.records.find((r) => r.lesson === state.lesson);
  return { ...record.composite.values, ...state.inputs };
}

/** The fused node with the same logits, target and temperature. */
function fusedRun(mistake) {
  const { fused, roles } = lesson();
  const [a, y] = fused.nodes[fused.output].inputs;
  const node = fused.nodes[fused.output];
  const temperature = state.inputs[roles.temperature]?.[0] ?? node.params.temperature;
  const nodes = fused.nodes.with(fused.output, {
    ...node,
    params: { ...node.params, temperature },
  });
  return run(
    { ...fused, nodes },
    { [a]: state.inputs[roles.a], [y]: state.inputs[roles.y] },
    mistake,
  );
}

let kept = {}; // what was computed for the present inputs

/** The numbers that the page shows now, and the order in which they come. */
function current() {
  const { graph, fused, roles } = lesson();
  const key = JSON.stringify([state.lesson, state.preset, state.inputs, brokenEngine()?.key]);
  if (kept.key === key) return kept;
  const record = recordOf(state.preset, state.lesson);
  const able = known(graph);
  const found = { key, able, ...timetable() };
  const { composite: answer = record?.composite, fused: fusedAnswer = record?.fused } = asked();
  found.right = engine.answer || !able ? recorded(graph, answer) : run(graph, inputs());
  const ownFused = fused && known(fused) && roles.y !== undefined && !engine.answer;
  if (fused) found.fused = ownFused ? fusedRun() : recorded(fused, fusedAnswer);
  found.run = found.right;
  const { form, sent, gradients } = brokenEngine() ?? {};
  const wrong = (right) => ({
    ...right,
    sent: { ...right.sent, ...sent },
    gradients: { ...right.gradients, ...gradients },
  });
  if (sent && form === "fused") found.fused = recorded(fused, wrong(record.fused));
  else if (sent) found.run = recorded(graph, wrong(record.composite));
  return (kept = found);
}

/** In a live widget the engine in Python is asked for the numbers, and answers a little later. */
const engine = { live: false, key: "", answer: null };

/** What the engine has answered for the present inputs; asks it, if that is still to come. */
function asked() {
  if (!engine.live) return {};
  const { lesson: name, inputs } = state;
  const key = JSON.stringify([name, inputs]);
  if (engine.key !== key) {
    Object.assign(engine, { key, answer: null });
    parent.postMessage({ key, lesson: name, inputs }, "*");
  }
  return engine.answer ?? {};
}

addEventListener("message", ({ source, data: said }) => {
  if (source !== parent || source === window) return;
  if (said?.engine) {
    engine.live = true;
    shown.words = at("inputs").key = "";
  } else if (said?.key === engine.key) engine.answer = said;
  else return;
  kept = {};
  set({});
});

const timetables = new Map();

/** The steps of a lesson; they do not depend on its inputs. */
function timetable(key = state.lesson) {
  if (!timetables.has(key)) {
    const { graph, boxes } = data.lessons[key];
    timetables.set(
      key,
      scheduled(graph, (id) => boxes.includes(id)),
    );
  }
  return timetables.get(key);
}

/** Write the state into the address, so that it can be kept and sent. */
function writeAddress() {
  const words = new URLSearchParams();
  const first = { ...start(), lang: data.lang, lesson: presetNow().lesson };
  for (const key of ["lang", "theme", "preset", "lesson", "step", "view", "mistake"])
    if (state[key] !== first[key] && state[key] !== "") words.set(key, state[key]);
  for (const [id, numbers] of changed()) words.set(`x${id}`, numbers.join(","));
  for (const [end, element] of Object.entries(state.path ?? {})) words.set(end, element.join(","));
  try {
    history.replaceState(null, "", `#${words}`);
  } catch {
    // a frame without an address of its own keeps none
  }
}

const start = () => ({
  theme: "auto",
  preset: data.presets[0].key,
  lesson: data.presets[0].lesson,
  step: 0,
  view: "step",
  mistake: "",
  path: null,
});

/** Take the state from the address; whatever does not fit there is passed over. */
function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  Object.assign(state, start());
  const choose = (key, allowed) => {
    if (allowed.includes(words.get(key))) state[key] = words.get(key);
  };
  const listed = (key) => (words.get(key) ?? "").split(",").map(Number);
  choose("lang", Object.keys(data.texts));
  choose("theme", THEMES);
  choose("view", VIEWS);
  choose(
    "preset",
    Array.from(data.presets, ({ key }) => key),
  );
  const { lesson: usual, forms = [], mistakes = [] } = presetNow();
  state.lesson = usual;
  choose("lesson", forms);
  state.inputs = given(state.preset, state.lesson);
  for (const [id, numbers] of Object.entries(state.inputs)) {
    const given = words.has(`x${id}`) ? listed(`x${id}`) : [];
    if (given.length === numbers.length && given.every(Number.isFinite)) state.inputs[id] = given;
  }
  if (changed().length === 0)
    choose(
      "mistake",
      Array.from(mistakes, ({ key }) => key),
    );
  const { boxes, graph } = lesson();
  for (const end of ["from", "to"]) {
    const [id, k] = listed(end);
    if (boxes.includes(id) && k in Array(count(graph.nodes[id].shape)).fill(0))
      state.path = { ...state.path, [end]: [id, k] };
  }
  const last = timetable().steps.length - 1;
  state.step = Math.min(Math.max(Math.trunc(Number(words.get("step")) || 0), 0), last);
}

/** The inputs that are not the example's own, as [id, numbers]. */
function changed() {
  const usual = given(state.preset, state.lesson);
  return Object.entries(state.inputs).filter(([id, x]) => String(x) !== String(usual[id]));
}

/** The engine with a mistake in it, while its numbers are looked at. */
function brokenEngine() {
  if (state.view !== "break") return undefined;
  return presetNow().mistakes?.find((m) => m.key === state.mistake);
}

const presetNow = () => data.presets.find((p) => p.key === state.preset);
const THEMES = ["auto", "light", "dark"];
const VIEWS = ["step", "paths", "predict", "break"];

// 5. Writing --------------------------------------------------------------------------------------

/** A text in the chosen language, its places {like this} filled. */
function t(key, places = {}) {
  const text = key.split(".").reduce((section, name) => section?.[name], data.texts[state.lang]);
  return (text ?? key).replace(/\{(\w+)\}/g, (_, name) => places[name] ?? "");
}

const has = (key) => t(key) !== key;

/** A number with a few digits, and a true minus sign. */
function number(x, digits = 4) {
  if (Number.isNaN(x)) return "NaN";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  const size = Math.abs(x);
  const tiny = size !== 0 && (size < 1e-3 || size >= 1e5);
  const text = tiny
    ? x.toExponential(digits - 2)
    : size >= 1000
      ? x.toFixed(0)
      : x.toPrecision(digits);
  const plain = tiny ? text.replace(/\.?0*e\+?/, "e") : String(Number(text));
  return plain === "-0" ? "0" : plain.replaceAll("-", "−");
}

/** An array in a line of text: [1, 0, 0], or the number alone. */
function inWords({ shape, data }, most = 6) {
  if (!shape.length) return number(data[0]);
  const width = shape.at(-1) || 1;
  const rows = Array.from({ length: Math.min(data.length / width, most) }, (_, i) => {
    const row = [...data.subarray(i * width, (i + 1) * width)].map((x) => number(x));
    return `[${(row.length > most ? [...row.slice(0, most), "…"] : row).join(", ")}]`;
  });
  return rows.length > 1 ? `[${rows.join(", ")}]` : rows[0];
}

/** Make an element. Text goes in as text, whatever it looks like. */
function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((x) => x !== null && x !== undefined));
  return element;
}

const svg = (tag, attributes, ...children) =>
  filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const ml = (tag, ...children) =>
  filled(document.createElementNS("http://www.w3.org/1998/Math/MathML", tag), {}, children);
const mo = (sign) => ml("mo", sign);
const math = (...children) => ml("math", ml("mrow", ...children));

/** A node's name in MathML; of one written as a formula, $\hat{y}_1$, the file has the tree. */
function symbol({ name, math: tree }) {
  const built = ([tag, ...parts]) =>
    ml(tag, ...parts.map((part) => (Array.isArray(part) ? built(part) : part)));
  return tree ? built(tree) : ml("mi", name);
}

const numeral = (x) => {
  const shown = number(x);
  const found = shown.startsWith("−")
    ? ml("mrow", mo("−"), ml("mn", shown.slice(1)))
    : ml("mn", shown);
  found.negative = shown.startsWith("−");
  return found;
};

const partial = (graph, id, index) => {
  const name = (node) => symbol(graph.nodes[node]);
  const below = index === undefined ? name(id) : ml("msub", name(id), ml("mtext", index));
  return ml("mfrac", ml("mrow", mo("∂"), name(graph.output)), ml("mrow", mo("∂"), below));
};

/** Split g · x into g and x, so that what arrived stands before a fraction and not in it. */
function withoutArrived(x) {
  if (x === "g" || String(x) === "neg,g") return [x, "1"];
  if (x[0] !== "·") return [null, x];
  const [front, rest] = withoutArrived(x[1]);
  if (front === null) return [null, x];
  return [front, rest === "1" ? x[2] : ["·", rest, x[2]]];
}

/** Write a formula in MathML; `letters` makes what stands for each letter. */
function written(formula, letters) {
  if (typeof formula === "string") {
    if (formula.endsWith("ᵀ")) return [ml("msup", letters[formula.slice(0, -1)](), mo("⊤"))];
    return [letters[formula]?.() ?? ml(/^\d/.test(formula) ? "mn" : "mi", formula)];
  }
  const [kind, a, b, ...more] = formula;
  const bare = (x) => ml("mrow", ...written(x[0] === "()" ? x[1] : x, letters));
  const safe = (x) => {
    const found = written(x, letters);
    return found.length === 1 && found[0].negative ? [mo("("), ...found, mo(")")] : found;
  };
  if (kind === "call") {
    if (a === "sqrt") return [ml("msqrt", bare(b))];
    const inner = [b, ...more].flatMap((x, i) => [i ? mo(",") : null, ...written(x, letters)]);
    const head = a === "Σ" ? mo("Σ") : ml("mi", a);
    return a === "Σ" && typeof b === "string"
      ? [head, ...inner]
      : [head, mo("("), ...inner, mo(")")];
  }
  const brackets = { "()": "()", "[]": "[]", "||": "||" }[kind];
  if (brackets) return [mo(brackets[0]), ...written(a, letters), mo(brackets[1])];
  if (kind === "neg") return [mo("−"), ...safe(a)];
  if (kind === "/") {
    const [front, over] = withoutArrived(a);
    const before = front === null ? [] : [...written(front, letters), mo("·")];
    return [...before, ml("mfrac", bare(over), bare(b))];
  }
  if (kind === "^") return [ml("msup", ml("mrow", ...safe(a)), bare(b))];
  return [...written(a, letters), mo(kind === "@" ? "" : kind), ...safe(b)];
}

/** The letters of a node's rule as the names of the graph. */
function names(graph, id) {
  const node = graph.nodes[id];
  const name = (i) => () => symbol(graph.nodes[i]);
  const operands = Object.fromEntries((node.inputs ?? []).map((i, k) => ["xyw"[k], name(i)]));
  const divisor = node.params?.divisor ?? 1;
  return {
    ...operands,
    z: name(id),
    g: () => partial(graph, id),
    s: () => ml("mrow", mo("Σ"), symbol(graph.nodes[node.inputs?.[1]] ?? { name: "y" })),
    p: () => ml("mi", "p"),
    n: () => ml("mi", "n"),
    divisor: () => numeral(divisor),
  };
}

/** What an element of an array is called. */
function elementName(shape, j) {
  if (count(shape) === 1) return "";
  const n = shape.at(-1);
  const [row, column] = [Math.floor(j / n), j % n];
  const softmax = lesson().roles.a !== undefined;
  const parts = [];
  if (n !== count(shape)) parts.push(softmax ? t("row", { i: row }) : row);
  if (n > 1) parts.push(softmax ? t("class", { j: column }) : column);
  return parts.join(", ");
}

/** An element's place as an index under a name. */
function index(shape, j) {
  if (count(shape) === 1) return undefined;
  const n = shape.at(-1);
  return n === 1 || n === count(shape) ? `${j}` : `${Math.floor(j / n)},${j % n}`;
}

// 6. Views ----------------------------------------------------------------------------------------

/** Change a text or a class only where it is another one: a step touches few of many nodes. */
function write(node, text) {
  if (node.shown !== text) node.textContent = node.shown = text;
}
function mark(node, name, on) {
  const marks = (node.marks ??= {});
  if (!!marks[name] === !!on) return;
  marks[name] = !!on;
  node.classList.toggle(name, !!on);
}

/** One picture that Graphviz laid out: makes places for its numbers, and fills them. */
class Picture {
  constructor(element, graph, fork) {
    Object.assign(this, { element, graph, fork, nodes: new Map(), edges: new Map() });
    const wants = wanted(graph);
    for (const node of element.querySelectorAll("[data-node]")) {
      const id = Number(node.dataset.node);
      const shows = ["value", ...(wants[id] ? ["gradient"] : [])];
      if (fork?.node === id) shows.push("numerator", "denominator");
      this.nodes.set(id, { node, blocks: this.blocks(node, id, shows) });
      const { title } = graph.nodes[id];
      if (node.querySelector(".title").textContent !== title) node.prepend(svg("title", {}, title));
    }
    for (const edge of element.querySelectorAll("[data-edge]")) {
      const [user, i] = edge.dataset.edge.split("-");
      const [rows, columns] = graph.nodes[graph.nodes[user].inputs[i]].grid ?? [1, 1];
      const { cell, row } = data.sizes;
      const place = svg("g", {
        class: "sent",
        transform: `translate(${edge.dataset.at ?? "0 0"})`,
      });
      edge.append(place);
      const cells = edge.dataset.at
        ? this.cells(place, rows, columns, (-columns * cell) / 2, -(rows / 2 - 0.75) * row)
        : [];
      this.edges.set(edge.dataset.edge, { edge, columns, cells });
    }
    const [, , width] = element.getAttribute("viewBox").split(" ");
    element.style.minWidth = `${(width * 0.66) / 16}rem`;
    element.style.maxWidth = `${(width * 1.2) / 16}rem`;
  }

  /** Room for arrays in a box: vectors side by side, matrices one over the other. */
  blocks(node, id, shows) {
    const [rows, columns] = this.graph.nodes[id].grid ?? [1, 1];
    const { cell, row, title, head } = data.sizes;
    const beside = columns === 1;
    const width = Number(node.querySelector("rect").getAttribute("width"));
    const left = (width - columns * cell * (beside ? shows.length : 1)) / 2;
    return shows.map((what, i) => {
      const x = left + (beside ? i * cell : 0);
      const y = title + head + (beside ? 0 : i * (head + rows * row));
      const place = svg("g", { class: what, transform: `translate(${x} ${y})` });
      const name = svg("text", { class: "head", x: (columns * cell) / 2, y: -3 });
      place.append(name);
      node.append(place);
      return { what, columns, name, cells: this.cells(place, rows, columns, 0, 0.75 * row) };
    });
  }

  cells(place, rows, columns, x, y) {
    const { cell, row } = data.sizes;
    const made = Array.from({ length: rows * columns }, (_, i) =>
      svg("text", { x: x + ((i % columns) + 0.5) * cell, y: y + Math.floor(i / columns) * row }),
    );
    place.append(...made);
    return made;
  }

  /** Put an array into its cells; a dash for what is not known yet, dots for what has no room. */
  fill(cells, columns, array) {
    const width = columns > 1 ? array?.shape.at(-1) : 1;
    cells.forEach((cell, i) => {
      const at = Math.floor(i / columns) * width + (i % columns);
      const cut = array && i === cells.length - 1 && array.data.length > cells.length;
      write(cell, cut ? "…" : array ? number(array.data[at], 3) : "—");
      mark(cell, "broken", array && !cut && !Number.isFinite(array.data[at]));
    });
  }

  /** Show what is known at a step; `at` says when each number comes, `active` what is going on. */
  show(run, at, step, active) {
    for (const [id, { node, blocks }] of this.nodes) {
      const value = at.value[id] <= step ? run.values[id] : null;
      const whole = at.complete[id] <= step;
      const partly = !whole && at.begun[id] <= step;
      for (const { what, columns, name, cells } of blocks) {
        const which = ["numerator", "denominator"].indexOf(what);
        const arrived = () =>
          whole ? run.gradients[id] : partly ? this.soFar(run, at, id, step) : null;
        const array =
          what === "value"
            ? value
            : what === "gradient"
              ? arrived()
              : this.term(run, at, which, step);
        this.fill(cells, columns, array);
        write(
          name,
          which >= 0 ? this.fork.names[which] : t(partly && what === "gradient" ? "soFar" : what),
        );
      }
      mark(node, "active", active.node === id);
      mark(node, "waiting", !value);
      mark(node, "partly", partly);
      mark(node, "path", active.nodes?.has(id));
      mark(node, "wrong", active.wrong?.nodes.includes(id) || (id === active.broke && value));
    }
    for (const [key, { edge, columns, cells }] of this.edges) {
      const sent = at.sent[key] <= step ? run.sent[key] : null;
      mark(edge, "sent-now", at.sent[key] === step);
      mark(edge, "has-sent", sent);
      mark(edge, "forward-now", active.phase === "forward" && key.startsWith(`${active.node}-`));
      mark(edge, "numerator-edge", this.fork?.edges[0] === key);
      mark(edge, "denominator-edge", this.fork?.edges[1] === key);
      mark(edge, "path", active.edges?.has(key));
      mark(edge, "wrong", active.wrong?.edges.includes(key));
      if (sent) this.fill(cells, columns, sent);
      else cells.forEach((cell) => write(cell, ""));
    }
  }

  /** What has arrived at a node until now, of a gradient to which more will be added. */
  soFar(run, at, id, step) {
    const arrived = Object.keys(run.sent).filter((key) => {
      const [user, i] = key.split("-");
      return this.graph.nodes[user].inputs[i] === id && at.sent[key] <= step;
    });
    return arrived.map((key) => run.sent[key]).reduce(added);
  }

  term(run, at, which, step) {
    return at.sent[this.fork.edges[which]] <= step ? term(run, this.fork, which) : null;
  }
}

/** An addend at the fork, taken on to the logits: there they are −y and +p·Σy. */
function term(run, fork, which) {
  const sent = run.sent[fork.edges[which]];
  if (!fork.scaled) return sent;
  const { data } = run.values[fork.node];
  return { shape: sent.shape, data: sent.data.map((x, i) => x * data[i]) };
}

const pictures = new Map();

/** The picture of the present lesson's graph, or of its fused node, which several may share. */
function pictureOf(side) {
  const { graph, fused, fork, pictures: chosen } = lesson();
  const element = document.querySelectorAll(`svg[data-side=${side}]`)[chosen[side]];
  if (!pictures.has(element)) {
    const made = side === "fused" ? new Picture(element, fused) : new Picture(element, graph, fork);
    pictures.set(element, made);
  }
  return pictures.get(element);
}

/** Show the pictures of the lesson, and hide those of the others. */
function showPictures() {
  const { run, fused, at, steps } = current();
  const broken = brokenEngine();
  const shown = [pictureOf("graph"), ...(fused ? [pictureOf("fused")] : [])].map((x) => x.element);
  for (const element of document.querySelectorAll("svg.picture"))
    mark(element, "elsewhere", !shown.includes(element));
  const picture = pictureOf("graph");
  const wrong = broken?.form === "fused" ? undefined : broken;
  const broke = firstBroken(run);
  picture.show(run, at, state.step, { ...steps[state.step], ...pathMarks(), wrong, broke });
  picture.element.setAttribute("aria-label", t("graphLabel", { n: lesson().boxes.length }));
  follow(picture, steps[state.step].node);
  if (fused) showFused(fused, broken?.form === "fused" ? broken : undefined);
}

const at = (id) => document.getElementById(id);

/** The fused node takes one step where the composite takes many: the first of each direction. */
function showFused(run, wrong) {
  const { fused, roles } = lesson();
  const { loss, steps } = current();
  const { output, nodes } = fused;
  const [logits] = nodes[output].inputs;
  const back = state.view === "predict" ? steps.length - 1 : loss + 1;
  const when = {
    value: nodes.map((_, id) => (id === output ? 1 : 0)),
    sent: {},
    begun: [],
    complete: [],
  };
  when.begun[output] = when.complete[output] = loss;
  when.begun[logits] = when.complete[logits] = when.sent[`${output}-0`] = back;
  const node = [1, loss, back].includes(state.step) ? output : undefined;
  const picture = pictureOf("fused");
  picture.show(run, when, state.step, { phase: steps[state.step].phase, node, wrong });
  picture.element.setAttribute("aria-label", t("fusedLabel"));
  const { divisor = 1, temperature = 1 } = nodes[output].params ?? {};
  const divided = [divisor, state.inputs[roles.temperature]?.[0] ?? temperature].filter(
    (x) => x !== 1,
  );
  const closed = ml("mrow", ...written(parse("s · p − y"), names(fused, output)));
  const under = divided.flatMap((x, i) => [i ? mo("·") : null, numeral(x)]);
  const right = under.length ? ml("mfrac", closed, ml("mrow", ...under)) : closed;
  at("closed").replaceChildren(math(partial(fused, logits), mo("="), right));
  const of = steps.length - 1 - loss;
  write(
    at("fused-steps"),
    t("fusedSteps", { n: Math.min(Math.max(0, state.step - loss), of), of }),
  );
}

/** Keep the node that the step is about in sight, where the picture is larger than its frame. */
function follow({ element, nodes }, id) {
  const frame = at("graph");
  const box = nodes.get(id)?.node;
  if (!box || (frame.scrollWidth <= frame.clientWidth && frame.scrollHeight <= frame.clientHeight))
    return;
  const [inner, outer] = [box.getBoundingClientRect(), frame.getBoundingClientRect()];
  frame.scrollBy({
    left: inner.left + inner.width / 2 - outer.left - outer.width / 2,
    top: inner.top + inner.height / 2 - outer.top - outer.height / 2,
    behavior: still.matches ? "instant" : "smooth",
  });
}

const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Number and count of a step within its direction. */
function counted() {
  const { steps, loss } = current();
  const forward = state.step < loss;
  return forward
    ? { i: state.step, of: loss - 1 }
    : { i: state.step - loss, of: steps.length - 1 - loss };
}

/** The sentence of a step, which is read out, and written over its formulas. */
function sentence() {
  const { run, steps } = current();
  const { nodes, output } = lesson().graph;
  const { phase, node: id } = steps[state.step];
  if (phase === "start") return t("says.start");
  const node = nodes[id];
  const heard = { ...counted(), title: node.title, name: node.name, loss: nodes[output].name };
  if (phase === "forward") return t("says.forward", { ...heard, value: inWords(run.values[id]) });
  if (phase === "seed") return t("says.seed", heard);
  if (!node.inputs) return t("says.leaf", { ...heard, value: inWords(run.gradients[id]) });
  const sends = sentBy(id).map(([key, source]) =>
    t("says.sends", { name: nodes[source].name, value: inWords(run.sent[key]) }),
  );
  return t("says.backward", { ...heard, sends: sends.join(t("says.and")) });
}

/** The edges over which a node sends something back, with the node that it goes to. */
function sentBy(id) {
  const { sent } = current().run;
  const inputs = lesson().graph.nodes[id].inputs ?? [];
  return inputs.map((source, i) => [`${id}-${i}`, source, i]).filter(([key]) => sent[key]);
}

/** The edges over which something is sent back to a node. */
function sentTo(id) {
  const { sent } = current().run;
  const keys = consumers(lesson().graph)[id].map(([user, i]) => `${user}-${i}`);
  return keys.filter((key) => sent[key]);
}

const formula = (...parts) => make("div", { class: "formula" }, math(...parts));
const words = (key, places) => (has(key) ? make("p", {}, t(key, places)) : null);

/** A table that can be scrolled: rows of [kind, name, cells], under a head of names. */
function table(label, rows, heads) {
  const head = (scope, name) => (name ? make("th", { scope }, name) : make("td"));
  const line = ([kind, name, cells]) => {
    const numbers = cells.map((x) => make("td", {}, x));
    return make("tr", { class: kind }, head("row", name), numbers);
  };
  const top =
    heads &&
    make(
      "tr",
      {},
      make("td"),
      heads.map((x) => head("col", x)),
    );
  const body = make("tbody", {}, rows.map(line));
  const made = make("table", {}, heads ? make("thead", {}, top) : null, body);
  return make("div", { class: "wide", tabindex: 0, role: "group", "aria-label": label }, made);
}

const MOST = 12; // elements of an array that a table shows
const numerals = (x, digits = 4) => [...x].slice(0, MOST).map((v) => number(v, digits));
const elementNames = (shape, most = MOST) =>
  Array.from({ length: Math.min(count(shape), most) }, (_, j) => elementName(shape, j));

/** The card of a step: the rule, the numbers put into it, and what has added up so far. */
function stepCard() {
  const { run, steps } = current();
  const { graph, fork, roles } = lesson();
  const { phase, node: id } = steps[state.step];
  if (phase === "start") return [make("p", { class: "hint" }, t("hint"))];
  const node = graph.nodes[id];
  if (phase === "seed")
    return [
      formula(partial(graph, id), mo("="), ml("mtext", inWords(run.gradients[id]))),
      words("seed", node),
    ];
  if (phase === "forward") return forwardCard(graph, id, run);
  if (!node.inputs) {
    const meets = fork ? fork.node : id;
    return [
      fork
        ? formula(partial(graph, id), mo("="), ml("mtext", fork.names.join(" ").replace("+", "+ ")))
        : null,
      words(!fork ? "leafPlain" : fork.scaled ? "leaf" : "leafDirect"),
      sentTo(meets).length > 1 ? addingUp(meets) : null,
      id === roles.a ? agreement() : null,
    ];
  }
  const meets = sentBy(id)
    .map(([, source]) => source)
    .filter((source) => sentTo(source).length > 1);
  if (fork?.node === id) meets.unshift(id);
  const parts = sentBy(id).map(([key, source, i]) => pulledBack(graph, run, id, key, source, i));
  return [
    words(`ops.${node.op}`),
    make("div", { class: "sides" }, parts),
    ...[...new Set(meets)].map(addingUp),
  ];
}

/** At the end: that the fused node has found the same. */
function agreement() {
  const { run, fused } = current();
  const { fused: graph, roles } = lesson();
  if (!fused || brokenEngine() || state.lesson === "twice") return null;
  const theirs = fused.gradients[graph.nodes[graph.output].inputs[0]];
  const apart = Math.max(
    ...run.gradients[roles.a].data.map((x, i) => Math.abs(x - theirs.data[i])),
  );
  const says = Number.isFinite(apart) ? "same" : "differ";
  return make("p", { class: "verdict" }, t(says, { apart: number(apart, 3) }));
}

/** The node whose value is the first that is not finite. */
const firstBroken = (run) => run.values.findIndex((x) => !x.data.every(Number.isFinite));

function forwardCard(graph, id, run) {
  const node = graph.nodes[id];
  const row = TABLE[node.op];
  const shows =
    row && row !== moved ? written(parse(row.shows), names(graph, id)) : [ml("mtext", node.title)];
  const name =
    node.title.startsWith(`${node.name} = `) && row !== moved ? [symbol(node), mo("=")] : [];
  const broken = firstBroken(run) === id;
  const elements =
    row && node.params !== null ? [...run.values[id].data.keys()].slice(0, MOST) : [];
  const lines = elements.map((j) => [
    elementName(node.shape, j),
    forwardNumbers(graph, id, run, j),
    run.values[id].data[j],
  ]);
  return [
    formula(...name, ...shows),
    words(`does.${node.op}`),
    numbersTable(lines),
    broken ? make("p", { class: "alarm" }, t("broke", { name: node.name })) : null,
  ];
}

/** The numbers that one element of a node is computed from, put into its formula. */
function forwardNumbers(graph, id, run, j) {
  const node = graph.nodes[id];
  const row = TABLE[node.op];
  const operands = node.inputs.map((i) => run.values[i]);
  if (row.each) {
    const at = (x) => x.data[places(x.shape, node.shape)[j]];
    const letters = operands.map((x, k) => ["xyw"[k], () => numeral(at(x))]);
    return written(parse(row.shows), Object.fromEntries(letters));
  }
  if (!node.params?.axes) return [];
  const parts = [...operands[0].data].filter((_, i) => row.feeds(i, operands, node)[0] === j);
  const sign = row.shows.startsWith("Σ") ? "+" : ",";
  const shown = parts.slice(0, 4).flatMap((x, i) => [i ? mo(sign) : null, ...bracketed(x, i)]);
  if (parts.length > 4) shown.push(mo(sign), mo("…"));
  if (node.op === "mean")
    return [ml("mfrac", ml("mrow", ...shown.filter(Boolean)), numeral(parts.length))];
  return sign === "+" ? shown : [ml("mi", node.op), mo("("), ...shown, mo(")")];
}

const bracketed = (x, i = 1) => (i && x < 0 ? [mo("("), numeral(x), mo(")")] : [numeral(x)]);

/** Lines of [an element's name, what is put into the formula, what comes out]. */
function numbersTable(lines) {
  if (!lines.length) return null;
  const rows = lines.map(([name, put, result]) => [
    "numbers",
    name,
    [put.length ? math(...put, mo("=")) : "", number(result)],
  ]);
  return table(t("numbers"), rows);
}

/** What one edge carries back: the rule of the operation, and for each element its numbers. */
function pulledBack(graph, run, id, key, source, i) {
  const node = graph.nodes[id];
  const { shape, name } = graph.nodes[source];
  const row = TABLE[node.op];
  const rule = row?.rules[i] ?? row?.rules[0];
  const summed = row?.each && count(shape) < count(node.shape) ? [mo("Σ")] : [];
  const shows = rule
    ? [...summed, ...written(parse(rule), names(graph, id))]
    : [ml("mtext", t("ops.moved"))];
  const lines = [...run.sent[key].data]
    .slice(0, MOST)
    .map((x, j) => [elementName(shape, j), rule ? backwardNumbers(graph, run, id, i, j) : [], x]);
  return make(
    "section",
    {},
    make("h2", {}, t("sendsTo", { from: node.name, to: name })),
    formula(...shows),
    numbersTable(lines),
  );
}

/** The rule of an edge with the numbers of one element in it; added up, if it went into several. */
function backwardNumbers(graph, run, id, i, j, most = 3) {
  const node = graph.nodes[id];
  const row = TABLE[node.op];
  if (!row?.letters || node.params === null) return [];
  const operands = node.inputs.map((x) => run.values[x]);
  const given = Object.entries(row.letters(run.gradients[id], run.values[id], operands, node));
  const over = row.each ? node.shape : operands[i].shape;
  const elements = row.each ? row.feeds(j, operands, node, i) : [j];
  const rule = row.rules[i] ?? row.rules[0];
  if (rule === "g") return [];
  const terms = elements.slice(0, most).flatMap((k, nth) => {
    const letters = given.map(([name, x]) => [
      name,
      () => numeral(x.data[places(x.shape, over)[k]]),
    ]);
    const nothing =
      elements.length > 1 && given[0][1].data[places(given[0][1].shape, over)[k]] === 0;
    const term = nothing ? [numeral(0)] : written(parse(rule), Object.fromEntries(letters));
    const wrap = nth && /^−/.test(term[0].textContent);
    return [nth ? mo("+") : null, ...(wrap ? [mo("("), ...term, mo(")")] : term)];
  });
  return elements.length > most ? [...terms, mo("+"), mo("…")] : terms;
}

/** The gradient of a node that several others use, as it adds up. */
function addingUp(id) {
  const { run, at: when } = current();
  const { graph, fork } = lesson();
  const { shape, name } = graph.nodes[id];
  const line = (kind, label, x) => [
    kind,
    label,
    x ? numerals(x.data) : elementNames(shape).map(() => "—"),
  ];
  const keys = sentTo(id).sort((a, b) => when.sent[a] - when.sent[b]);
  const here = keys.filter((key) => when.sent[key] <= state.step);
  const tone = (key) =>
    fork?.node === id ? ["numerator", "denominator"][fork.edges.indexOf(key)] : "";
  const rows = keys.map((key) => {
    const through = t("through", { name: graph.nodes[key.split("-")[0]].name });
    return line(tone(key), through, here.includes(key) ? run.sent[key] : null);
  });
  const whole = here.length === keys.length;
  const sum = whole
    ? run.gradients[id]
    : here.length
      ? here.map((key) => run.sent[key]).reduce(added)
      : null;
  rows.push(line("total", t(whole ? "together" : "soFar"), sum));
  if (fork?.node === id) {
    const [one, other] = [0, 1].map((k) =>
      here.includes(fork.edges[k]) ? term(run, fork, k) : null,
    );
    const label = (k) => (fork.scaled ? t("times", { name, term: fork.names[k] }) : fork.names[k]);
    rows.push(line("numerator apart", label(0), one), line("denominator", label(1), other));
    rows.push(line("total", t("together"), one && other ? added(one, other) : null));
  }
  const title = t("meets", { name });
  return make("section", {}, make("h2", {}, title), table(title, rows, elementNames(shape)));
}

// Inputs

/** Fields and sliders for what can be changed; made once, and filled at each change. */
function inputsPanel() {
  const panel = at("inputs");
  const key = `${state.lesson}/${state.lang}`;
  if (panel.key !== key) {
    Object.assign(panel, { key, fields: [] });
    panel.replaceChildren(...inputFields(panel.fields).filter(Boolean));
  }
  for (const { field, read } of panel.fields) {
    const value = read();
    if (field.type === "radio") field.checked = value;
    else if (
      field.type === "range" ||
      document.activeElement !== field ||
      Number(field.value) !== value
    )
      field.value = Number.isFinite(value) ? Number(value.toPrecision(12)) : "";
  }
}

function inputFields(fields) {
  const { graph, roles } = lesson();
  if (!known(graph) && !engine.live) return [words("notEditable")];
  const leaves = changeable(lesson()).filter((id) => id !== roles.y && id !== roles.temperature);
  const small = leaves.filter((id) => count(graph.nodes[id].shape) <= 30);
  if (!small.length) return [words("tooMany")];
  return [...small.map((id) => inputTable(id, fields)), temperatureField(fields)];
}

/** Give an input other numbers. An engine with a mistake in it has only the example's own. */
function change(id, numbers) {
  set({ inputs: { ...state.inputs, [id]: numbers }, mistake: "" });
}

/** A field for element j of an input, or a slider. */
function inputField(fields, id, j, label, type, more) {
  const made = make("input", {
    type,
    "aria-label": label,
    step: "any",
    ...more,
    oninput: () => {
      const value = Number(made.value);
      if (made.value !== "" && Number.isFinite(value)) change(id, state.inputs[id].with(j, value));
    },
  });
  fields.push({ field: made, read: () => state.inputs[id][j] });
  return made;
}

function inputTable(id, fields) {
  const { graph, roles } = lesson();
  const { shape, name } = graph.nodes[id];
  const targets = id === roles.a && roles.y !== undefined;
  const title = targets ? t("logits") : name;
  const cell = (...children) => make("td", {}, children);
  const rows = elementNames(shape, 30).map((called, j) => {
    const field = (which, label, type, more) =>
      cell(inputField(fields, which, j, `${label}, ${called || name}`, type, more));
    const cells = [
      field(id, title, "range", { min: -5, max: 5, step: 0.1 }),
      field(id, title, "number"),
    ];
    if (targets)
      cells.push(
        cell(rightClass(fields, j, called)),
        field(roles.y, t("target"), "number", { min: 0 }),
      );
    return make("tr", {}, make("th", { scope: "row" }, called || name), cells);
  });
  const head = [title, ...(targets ? [t("target")] : [])];
  const heads = head.map((x) => make("th", { scope: "col", colspan: 2 }, x));
  return make(
    "table",
    { class: "inputs" },
    make("thead", {}, make("tr", {}, make("td"), heads)),
    make("tbody", {}, rows),
  );
}

/** The target that is one-hot in the row of an element, at this element. */
function oneHotAt(j) {
  const { graph, roles } = lesson();
  const classes = graph.nodes[roles.a].shape.at(-1);
  const row = (k) => Math.floor(k / classes);
  return state.inputs[roles.y].map((y, k) => (row(k) === row(j) ? +(k === j) : y));
}

/** Make a class the right one of its row. */
const chooseClass = (j) => change(lesson().roles.y, oneHotAt(j));

/** A button that makes a class the right one of its row. */
function rightClass(fields, j, called) {
  const { graph, roles } = lesson();
  const row = Math.floor(j / graph.nodes[roles.a].shape.at(-1));
  const label = t("rightClass", { name: called });
  const onchange = () => chooseClass(j);
  const radio = make("input", { type: "radio", name: `row-${row}`, "aria-label": label, onchange });
  fields.push({ field: radio, read: () => String(state.inputs[roles.y]) === String(oneHotAt(j)) });
  return radio;
}

/** The temperature. A graph that has none changes to the one that has, with the same numbers. */
function temperatureField(fields) {
  const { graph, roles } = lesson();
  const label = make("span", {}, t("temperature"));
  const slider = { min: 0.1, max: 5, step: 0.1 };
  if (roles.temperature !== undefined) {
    const field = (type, more) =>
      inputField(fields, roles.temperature, 0, t("temperature"), type, more);
    return make(
      "p",
      { class: "temperature" },
      label,
      field("range", slider),
      field("number", { min: 0.01 }),
    );
  }
  const hot = data.lessons.temperature;
  if (
    state.lesson !== "naive" ||
    String(hot?.graph.nodes[hot.roles.a].shape) !== String(graph.nodes[roles.a].shape)
  )
    return null;
  const heat = () => {
    const inputs = {
      [hot.roles.a]: state.inputs[roles.a],
      [hot.roles.y]: state.inputs[roles.y],
      [hot.roles.temperature]: [Number(made.value)],
    };
    set({ preset: "temperature", lesson: "temperature", inputs, step: 0, mistake: "", path: null });
    requestAnimationFrame(() => document.querySelector(".temperature input")?.focus());
  };
  const made = make("input", {
    type: "range",
    "aria-label": t("temperature"),
    value: 1,
    ...slider,
    onchange: heat,
  });
  return make("p", { class: "temperature" }, label, made, "1");
}

// Paths

/** What the view of the paths is about: the element that is differentiated, and by which. */
function ends() {
  const { graph, roles } = lesson();
  const usual = {
    to: [roles.p ?? graph.output, 0],
    from: [graph.nodes.findIndex((n) => n.op === "leaf"), 0],
  };
  return { ...usual, ...state.path };
}

/** The edges and nodes of the paths, or of the one that is pointed at. */
function pathMarks() {
  if (state.view !== "paths" || !current().able) return {};
  const { from, to } = ends();
  const all = paths(lesson().graph, current().run.values, from, to).paths;
  const chosen = all[state.chosen] ? [all[state.chosen]] : all;
  const edges = new Set(chosen.flatMap((path) => path.edges));
  const nodes = new Set(chosen.flatMap((path) => path.stops.map(([id]) => id)));
  return { phase: "", node: undefined, edges, nodes };
}

/** Every path between two elements, its factors and their product; and what all add up to. */
function pathsCard() {
  const { able, run } = current();
  const { graph, roles, boxes } = lesson();
  if (!able) return [words("notEditable")];
  const { from, to } = ends();
  const leaves = boxes.filter((id) => graph.nodes[id].op === "leaf");
  const outputs = boxes.filter((id) => wanted(graph)[id] && graph.nodes[id].inputs);
  const { paths: found, more } = paths(graph, run.values, from, to);
  const called = ([id, k]) => {
    const { name, shape } = graph.nodes[id];
    return index(shape, k) === undefined ? name : `${name}[${index(shape, k)}]`;
  };
  const rows = found.map(({ stops, factors }, i) => {
    const point = (chosen) => () => {
      state.chosen = chosen;
      showPictures();
    };
    const [on, off] = [point(i), point(undefined)];
    const events = { onfocus: on, onmouseenter: on, onblur: off, onmouseleave: off };
    const name = make("button", { class: "link", ...events }, stops.map(called).join(" → "));
    const put = factors.flatMap((x, n) => [n ? mo("·") : null, ...bracketed(x, n)]);
    return ["", name, [math(...put, mo("=")), number(factors.reduce((a, b) => a * b, 1))]];
  });
  const total = derivatives(graph, run.values, to, from[0])[from[1]];
  const symbolOf = ([id, k]) =>
    ml("msub", symbol(graph.nodes[id]), ml("mtext", index(graph.nodes[id].shape, k) ?? ""));
  const derivative = ml(
    "mfrac",
    ml("mrow", mo("∂"), symbolOf(to)),
    ml("mrow", mo("∂"), symbolOf(from)),
  );
  rows.push(["total", t("sumOfPaths"), [math(derivative, mo("=")), number(total)]]);
  return [
    words("paths.about"),
    make(
      "div",
      { class: "choices" },
      elementChoice("from", leaves, from),
      elementChoice("to", outputs, to),
    ),
    found.length ? table(t("tabs.paths"), rows) : words("paths.none"),
    more ? words("paths.more", { n: found.length }) : null,
    ...(roles.p === undefined ? [] : jacobian()),
  ];
}

/** A list of the elements of some nodes, for one end of the paths. */
function elementChoice(end, ids, [id, k]) {
  const { graph } = lesson();
  const options = ids.flatMap((i) =>
    elementNames(graph.nodes[i].shape).map((name, j) =>
      make("option", { value: `${i} ${j}` }, `${graph.nodes[i].name} ${name}`),
    ),
  );
  const choose = () =>
    set({ path: { ...state.path, [end]: select.value.split(" ").map(Number) }, chosen: undefined });
  const select = make("select", { onchange: choose }, options);
  select.value = `${id} ${k}`;
  return make("label", {}, t(`paths.${end}`), " ", select);
}

/** All derivatives of softmax, of one row: what lies on the diagonal, and what beside it. */
function jacobian() {
  const { run } = current();
  const { graph, roles } = lesson();
  const source = roles.q ?? roles.a; // where the last softmax begins, if there are two
  const n = Math.min(graph.nodes[roles.p].shape.at(-1), MOST);
  const all = Array.from({ length: n }, (_, i) =>
    [...derivatives(graph, run.values, [roles.p, i], source)].slice(0, n),
  );
  const { from, to } = ends();
  const small = (k) => [...`${k}`].map((c) => "₀₁₂₃₄₅₆₇₈₉"[c]).join("");
  const name = (id, k) => `∂${graph.nodes[id].name}${small(k)}`;
  const cell = (x, i, j) => {
    const chosen =
      String([to, from]) ===
      String([
        [roles.p, i],
        [source, j],
      ]);
    const kind = `link ${i === j ? "diagonal" : "beside"}${chosen ? " chosen" : ""}`;
    const label = t("paths.cell", { i, j, x: number(x) });
    const choose = () =>
      source === roles.a && set({ path: { from: [source, j], to: [roles.p, i] } });
    return make("button", { class: kind, "aria-label": label, onclick: choose }, number(x, 3));
  };
  const back = run.gradients[roles.p]?.data ?? [];
  const columns = [...all.keys()];
  const whole = columns.map((j) => all.reduce((sum, line, i) => sum + back[i] * line[j], 0));
  const diagonal = columns.map((j) => back[j] * all[j][j]);
  const rows = all.map((line, i) => [
    "matrix",
    name(roles.p, i),
    line.map((x, j) => cell(x, i, j)),
  ]);
  rows.push(
    ["total apart", t("paths.all"), numerals(whole, 3)],
    ["mistaken", t("paths.diagonal"), numerals(diagonal, 3)],
  );
  const title = t("paths.matrix");
  return [
    make("h2", {}, title),
    words("paths.formula"),
    table(
      title,
      rows,
      columns.map((j) => name(source, j)),
    ),
    words("paths.error"),
  ];
}

// Predict

/** The questions of a backward step: what goes over each edge, and what edges add up to. */
function questions() {
  const { run, steps, at: when } = current();
  const next = steps[state.step + 1];
  if (next?.phase !== "backward") return [];
  const found = [];
  for (const [key, source] of sentBy(next.node)) {
    found.push({ key, source, numbers: run.sent[key] });
    const keys = sentTo(source);
    const last = keys.every((other) => when.sent[other] <= state.step + 1);
    if (keys.length > 1 && last) found.push({ source, numbers: run.gradients[source] });
  }
  return found.map((question) => ({ ...question, ...tellingElement(question) }));
}

/** The element of a question whose answer tells most mistakes apart, and what they would give. */
function tellingElement(question) {
  const mistaken = mistakenRuns();
  const plain = plainSlips(question);
  let best = { worth: -1 };
  for (let j = 0; j < Math.min(question.numbers.data.length, MOST); j++) {
    const right = question.numbers.data[j];
    const slips = [];
    const slip = (key, value) => {
      const tells =
        Number.isFinite(value) && Math.abs(value - right) > 0.03 * Math.max(Math.abs(right), 0.01);
      if (tells) slips.push({ key, value });
    };
    for (const [key, { sent, gradients }] of mistaken)
      slip(key, (question.key ? sent[question.key] : gradients[question.source])?.data[j]);
    const named = new Set(slips.map(({ value }) => value.toPrecision(3))).size;
    for (const [key, { data }] of plain) slip(key, data[data.length === 1 ? 0 : j]);
    const commonest = question.key && slips.some(({ key }) => key === "diagonal") ? 5 : 0;
    const worth = named * 10 + commonest + (right !== 0 ? 5 : 0) + slips.length;
    if (worth > best.worth) best = { j, slips, worth };
  }
  return best;
}

/** What one gets who forgets a part of the rule of an edge. */
function plainSlips({ key, source, numbers }) {
  const { run } = current();
  const { nodes } = lesson().graph;
  const found = [
    ["sign", { data: numbers.data.map((x) => -x) }],
    ["value", run.values[source]],
  ];
  if (!key) return found;
  const [user, i] = key.split("-").map(Number);
  const ones = { ...run.gradients[user], data: run.gradients[user].data.map(() => 1) };
  const operands = nodes[user].inputs.map((x) => run.values[x]);
  const local = TABLE[nodes[user].op].pull(ones, run.values[user], operands, nodes[user], i);
  return [...found, ["local", local], ["arrived", run.gradients[user]]];
}

/** The sweep with each mistake in it that a learner makes, as far as it can be made here. */
function mistakenRuns() {
  const { graph, fork, roles } = lesson();
  const { values, sent } = current().right;
  const swept = (mistake) => backward(graph, values, graph.output, seed(graph), mistake);
  const found = [["overwritten", swept({ overwrites: true })]];
  if (fork?.scaled) {
    const [, sum] = fork.edges;
    const [p, s] = [values[roles.p], values[roles.s]];
    const own = (back, gradients) =>
      each(compiled(parse("−g · p / s")), back.shape, { g: gradients[roles.p], p, s });
    found.push([
      "diagonal",
      swept({
        pull: (back, id, i, gradients) => (`${id}-${i}` === sum ? own(back, gradients) : back),
      }),
    ]);
  }
  const n = values[roles.mean]?.data[0] ?? 1;
  if (n !== 1) {
    const times = (factor) =>
      swept({
        pull: (back, id) =>
          id === graph.output ? { ...back, data: back.data.map((x) => x * factor) } : back,
      });
    found.push(["mean-forgotten", times(n)], ["mean-twice", times(1 / n)]);
  }
  if (roles.p === undefined || roles.y === undefined || state.lesson === "twice") return found;
  const scale = n * (values[roles.temperature]?.data[0] ?? 1);
  const [p, y] = [values[roles.p], values[roles.y]];
  const node = { params: { divisor: 1, temperature: 1 } };
  const again = softmaxWithLoss.letters(values[graph.output], null, [p, y], node).p;
  for (const [key, q] of [
    ["p-minus-y", p],
    ["softmax-twice", again],
  ]) {
    const wrong = { shape: p.shape, data: q.data.map((x, j) => (x - y.data[j]) / scale) };
    const into = sentTo(roles.a);
    found.push([
      key,
      { gradients: { [roles.a]: wrong }, sent: into.length === 1 ? { [into[0]]: wrong } : {} },
    ]);
  }
  return found;
}

const answered = { place: "", count: 0, said: "", tries: 0 };

const button = (text, onclick) => make("button", { type: "button", class: "main", onclick }, text);

/** Ask for the next number before it is shown; a wrong answer is told which mistake gives it. */
function predictCard() {
  const { steps, loss, able } = current();
  if (!able) return [words("notEditable")];
  if (state.step < loss)
    return [words("predict.about"), button(t("predict.begin"), () => set({ step: loss }))];
  const place = JSON.stringify([state.lesson, state.step, state.inputs]);
  if (answered.place !== place) {
    const said = answered.moved ? answered.said : "";
    Object.assign(answered, { place, said, count: 0, tries: 0, moved: false });
  }
  const said = make(
    "p",
    { class: answered.right ? "verdict" : "alarm", role: "status" },
    answered.said,
  );
  if (state.step === steps.length - 1)
    return [said, words("predict.done"), button(t("predict.again"), () => set({ step: loss }))];
  const all = questions();
  const question = all[answered.count];
  if (!question)
    return [
      said,
      words("predict.nothing"),
      button(t("controls.next"), () => set({ step: state.step + 1 })),
    ];
  return [
    said,
    questionForm(question, all.length),
    hintOf(question),
    make("p", { class: "hint" }, t("predict.hint")),
  ];
}

function questionForm(question, many) {
  const { graph } = lesson();
  const { shape, name } = graph.nodes[question.source];
  const right = question.numbers.data[question.j];
  const from = question.key && graph.nodes[question.key.split("-")[0]].name;
  const element = elementName(shape, question.j);
  const to = element ? `${name} (${element})` : name;
  const ask = t(question.key ? "predict.ask" : "predict.askSum", { from, to });
  const say = (said, correct) => {
    Object.assign(answered, { said, right: correct });
    if (correct) Object.assign(answered, { count: answered.count + 1, tries: 0 });
    else answered.tries += 1;
    answered.moved = answered.count === many;
    if (answered.moved) state.step += 1;
    render();
    at("answer")?.focus();
  };
  const check = (event) => {
    event.preventDefault();
    const answer = readNumber(field.value);
    if (answer === null) return say(t("predict.notANumber"), false);
    if (isMeant(answer, right, field.value))
      return say(t("predict.right", { value: number(right) }), true);
    const slips = question.slips.filter(({ value }) => isMeant(answer, value, field.value));
    say(
      slips
        .slice(0, 2)
        .map(({ key }) => slipText(key))
        .join(" ") || t("predict.wrong"),
      false,
    );
  };
  const field = make("input", { id: "answer", autocomplete: "off", size: 9 });
  const asked = math(
    partial(graph, question.source, index(shape, question.j)),
    mo(question.key ? "←" : "="),
  );
  const show = () => say(t("predict.shown", { value: number(right) }), true);
  const buttons = [
    make("button", { class: "main" }, t("predict.check")),
    make("button", { type: "button", onclick: show }, t("predict.show")),
  ];
  return make(
    "form",
    { onsubmit: check },
    make("label", { for: "answer" }, ask),
    make("div", { class: "answer" }, asked, field, buttons),
  );
}

/** The rule of a question, once an answer was wrong. */
function hintOf({ key }) {
  if (!key || !answered.tries) return null;
  const [id, i] = key.split("-").map(Number);
  const { rules } = TABLE[lesson().graph.nodes[id].op];
  return rules.length
    ? formula(...written(parse(rules[i] ?? rules[0]), names(lesson().graph, id)))
    : null;
}

/** Read a number as people write it: 0.5, 0,5, −1/3, 2e-3. */
function readNumber(text) {
  const plain = text
    .trim()
    .replaceAll("−", "-")
    .replace(/(\d),(\d)/, "$1.$2");
  const [over, under = "1", ...rest] = plain.split("/");
  const value = Number(over) / Number(under);
  return plain === "" || rest.length || !Number.isFinite(value) ? null : value;
}

/** Whether an answer is this number, as far as it was rounded: to two places, or within 2 %. */
function isMeant(answer, value, text) {
  const decimals = (text.split(/[.,]/)[1] ?? "").replace(/\D.*/, "").length;
  const rounding = decimals >= 2 ? 0.501 * 10 ** -decimals : 1e-9;
  return Math.abs(answer - value) <= Math.max(rounding, 0.02 * Math.abs(value));
}

const slipText = (key) =>
  has(`slips.${key}`)
    ? t(`slips.${key}`)
    : t("predict.mistake", { what: t(`mistakes.${key}.what`) });

// Break it

/** The real engine with one mistake in it: what came out, on which edge, and how it is caught. */
function breakCard() {
  const { mistakes = [] } = presetNow();
  if (!mistakes.length) return [words("break.nothing")];
  const choice = (key, name) => {
    const checked = state.mistake === key;
    const radio = make("input", {
      type: "radio",
      name: "mistake",
      value: key,
      checked,
      onchange: () => chooseMistake(key),
    });
    return make("label", {}, radio, " ", name);
  };
  const titles = mistakes.map(({ key }) => choice(key, t(`mistakes.${key}.title`)));
  const list = make(
    "fieldset",
    {},
    make("legend", {}, t("break.choose")),
    choice("", t("break.none")),
    titles,
  );
  const broken = brokenEngine();
  if (!broken) return [words("break.about"), list];
  const { graph, fused, roles } = lesson();
  const { nodes } = broken.form === "fused" ? fused : graph;
  const edge = ([user, i]) =>
    t("break.edge", { from: nodes[user].name, to: nodes[nodes[user].inputs[i]].name });
  const where = [
    ...broken.edges.map((key) => edge(key.split("-"))),
    ...broken.nodes.map((id) => t("break.node", nodes[id])),
  ];
  const says = (part) => t(`mistakes.${broken.key}.${part}`);
  const rows = [
    ["mistaken", t("break.wrong"), numerals(broken.gradient.map(Number), 3)],
    ["total", t("break.right"), numerals(current().right.gradients[roles.a].data, 3)],
  ];
  return [
    list,
    make("h2", {}, says("what")),
    make("p", {}, says("why")),
    table(t("break.wrong"), rows, elementNames(graph.nodes[roles.a].shape)),
    broken.own
      ? words("break.ownGraph")
      : make("p", {}, `${t("break.where")} ${where.join(t("says.and"))}`),
    make("p", {}, says("caught")),
    make(
      "pre",
      { class: "wide", tabindex: 0, lang: "en", role: "group", "aria-label": "gradcheck" },
      broken.report,
    ),
    make("p", { class: "hint" }, says("hides")),
  ];
}

/** The engine's numbers with a mistake are those of the preset's own inputs. */
function chooseMistake(key) {
  const { lesson: own } = presetNow();
  set({
    mistake: key,
    lesson: own,
    inputs: given(state.preset, own),
    step: timetable(own).steps.length - 1,
  });
}

// 7. Controls -------------------------------------------------------------------------------------

let waiting = false;

/** Change what is chosen; the page follows in the next frame, once for however many changes. */
function set(changes) {
  Object.assign(state, changes);
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    render();
  });
}

const CARDS = { step: stepCard, paths: pathsCard, predict: predictCard, break: breakCard };
const shown = { words: "" };

/** Make the card anew; what had the focus in it has it again. */
function showCard() {
  const card = at("card");
  const reachable = () => [...card.querySelectorAll("button, select, input")];
  const held = reachable().indexOf(document.activeElement);
  card.replaceChildren(...CARDS[state.view]().filter(Boolean));
  if (held >= 0) reachable()[held]?.focus();
}

/** Bring everything on the page into line with the state. */
function render() {
  const { steps, loss } = current();
  document.documentElement.dataset.theme = state.theme;
  if (shown.words !== `${state.lang}/${state.preset}/${state.lesson}`) writeWords();
  at("scrubber").max = steps.length - 1;
  at("scrubber").value = state.step;
  at("scrubber").setAttribute("aria-valuetext", stepName());
  write(at("place"), stepName());
  at("scrubber").style.setProperty("--turn", `${(100 * (loss - 0.5)) / (steps.length - 1)}%`);
  for (const id of ["first", "back"]) at(id).disabled = state.step === 0;
  for (const id of ["next", "last"]) at(id).disabled = state.step === steps.length - 1;
  showPictures();
  inputsPanel();
  showCard();
  for (const tab of document.querySelectorAll("[role=tab]")) {
    tab.setAttribute("aria-selected", tab.dataset.view === state.view);
    tab.tabIndex = tab.dataset.view === state.view ? 0 : -1;
  }
  at("card").setAttribute("aria-labelledby", `tab-${state.view}`);
  write(at("says"), state.view === "paths" ? "" : sentence());
  showLoss();
  clearTimeout(shown.address);
  shown.address = setTimeout(writeAddress, 250);
}

/** The loss, and under softmax applied twice how low it can get. */
function showLoss() {
  const { run, fused } = current();
  const { graph, roles } = lesson();
  const { name, shape } = graph.nodes[graph.output];
  const known = state.step >= current().at.value[graph.output] && count(shape) === 1;
  write(at("loss"), known ? `${name} = ${inWords(run.values[graph.output])}` : "");
  const n = graph.nodes[roles.p]?.shape.at(-1);
  const bound = state.lesson === "twice" ? Math.log(1 + (n - 1) / Math.E) : 0;
  write(
    at("bound"),
    bound ? t("bound", { bound: number(bound), once: number(fused.values.at(-1).data[0]) }) : "",
  );
}

function stepName() {
  const { steps, loss } = current();
  const { phase } = steps[state.step];
  if (phase === "start") return t("phase.start");
  if (phase === "seed") return t("phase.seed");
  const [i, of] =
    phase === "forward" ? [state.step, loss - 1] : [state.step - loss, steps.length - 1 - loss];
  return t(`phase.${phase}`, { i, of });
}

/** The texts that stay while one steps: those of the language and of the preset. */
function writeWords() {
  shown.words = `${state.lang}/${state.preset}/${state.lesson}`;
  document.documentElement.lang = state.lang;
  document.title = t("title");
  for (const element of document.querySelectorAll("[data-text]"))
    write(element, t(element.dataset.text));
  for (const element of document.querySelectorAll("[data-label]"))
    element.setAttribute("aria-label", t(element.dataset.label));
  const { forms = [] } = presetNow();
  at("preset").replaceChildren(
    ...data.presets.map((p) =>
      make(
        "option",
        { value: p.key, selected: p.key === state.preset },
        p.title ?? t(`presets.${p.key}.name`),
      ),
    ),
  );
  at("forms").replaceChildren(
    ...forms.map((key) =>
      make(
        "button",
        { "aria-pressed": String(key === state.lesson), onclick: () => changeForm(key) },
        t(`forms.${key}`),
      ),
    ),
  );
  at("preset").parentNode.hidden = data.presets.length === 1;
  at("forms").hidden = !forms.length;
  write(at("about"), t(`presets.${state.preset}.about`));
  const other = Object.keys(data.texts).find((lang) => lang !== state.lang);
  at("language").lang = other;
  write(at("language"), data.texts[other].language);
  write(at("theme"), t(`themes.${state.theme}`));
  at("fused-panel").hidden = !lesson().fused;
  for (const tab of document.querySelectorAll("[role=tab]"))
    tab.hidden = !lesson().fused && ["break"].includes(tab.dataset.view);
  const worst = checked.worst.toExponential(1).replace("-", "−");
  const right = checked.worst <= checked.allowed ? "right" : "wrong";
  write(at("check"), t(`check.${engine.live ? "live" : right}`, { n: checked.count, worst }));
  write(at("play"), t(playing ? "controls.pause" : "controls.play"));
}

function choosePreset(key) {
  const preset = data.presets.find((p) => p.key === key);
  stop();
  set({
    preset: key,
    lesson: preset.lesson,
    inputs: given(key, preset.lesson),
    step: 0,
    path: null,
    mistake: "",
  });
}

/** Another form of the same loss, with the same logits and target. */
function changeForm(key) {
  const [old, fresh] = [lesson().roles, data.lessons[key].roles];
  const moved = { [fresh.a]: state.inputs[old.a], [fresh.y]: state.inputs[old.y] };
  stop();
  set({ lesson: key, inputs: { ...given(state.preset, key), ...moved }, step: 0, path: null });
}

function go(step) {
  const last = current().steps.length - 1;
  const to = Math.min(Math.max(step, 0), last);
  const asking = state.view === "predict" && to > state.step && to > current().loss;
  if (!asking) set({ step: to });
  else at("answer")?.focus();
}

let playing = 0;

function play() {
  if (playing) return stop();
  if (state.step === current().steps.length - 1) state.step = 0;
  const tick = () => {
    go(state.step + 1);
    if (state.step >= current().steps.length - 1) stop();
  };
  playing = setInterval(tick, 1400);
  write(at("play"), t("controls.pause"));
  tick();
}

function stop() {
  clearInterval(playing);
  playing = 0;
  write(at("play"), t("controls.play"));
}

/** Save the picture as it is now, as a file that needs nothing of the page. */
function savePicture() {
  const { element } = pictureOf("graph");
  const copy = element.cloneNode(true);
  const looks = [
    "fill",
    "stroke",
    "stroke-width",
    "stroke-dasharray",
    "font-size",
    "font-weight",
    "font-family",
    "text-anchor",
    "opacity",
    "paint-order",
    "display",
  ];
  const pairs = [
    [element, copy],
    ...[...element.querySelectorAll("*")].map((x, i) => [x, copy.querySelectorAll("*")[i]]),
  ];
  for (const [here, there] of pairs) {
    const style = getComputedStyle(here);
    for (const look of looks) there.setAttribute(look, style.getPropertyValue(look));
    for (const name of ["class", "style", "tabindex"]) there.removeAttribute(name);
  }
  const [x, y, width, height] = element.getAttribute("viewBox").split(" ");
  copy.prepend(
    svg("rect", { x, y, width, height, fill: getComputedStyle(document.body).backgroundColor }),
  );
  for (const [name, value] of Object.entries({
    width,
    height,
    xmlns: "http://www.w3.org/2000/svg",
  }))
    copy.setAttribute(name, value);
  const file = new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
  const link = make("a", {
    href: URL.createObjectURL(file),
    download: `${state.lesson}-${state.step}.svg`,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** Hold the page's arithmetic against the engine's numbers that came with it. */
function checkAgainstTheEngine() {
  const found = { count: 0, worst: 0, allowed: data.tolerance };
  for (const record of data.records) {
    const { graph, fused } = data.lessons[record.lesson];
    for (const [one, theirs] of [
      [graph, record.composite],
      [fused, record.fused],
    ]) {
      if (!one || !known(one)) continue;
      const expected = recorded(one, theirs);
      found.worst = Math.max(found.worst, difference(run(one, theirs.values), expected));
      found.count += 1;
    }
  }
  return found;
}

const checked = checkAgainstTheEngine();
Object.assign(at("check").dataset, { runs: checked.count, worst: checked.worst });

at("first").onclick = () => go(0);
at("back").onclick = () => go(state.step - 1);
at("next").onclick = () => go(state.step + 1);
at("last").onclick = () => go(Infinity);
at("play").onclick = play;
at("scrubber").oninput = () => go(Number(at("scrubber").value));
at("preset").onchange = () => choosePreset(at("preset").value);
at("reset").onclick = () => set({ inputs: given(state.preset, state.lesson) });
at("language").onclick = () =>
  set({ lang: Object.keys(data.texts).find((lang) => lang !== state.lang) });
at("theme").onclick = () => {
  set({ theme: THEMES[(THEMES.indexOf(state.theme) + 1) % THEMES.length] });
  write(at("theme"), t(`themes.${state.theme}`));
};
at("save").onclick = savePicture;

const tabs = [...document.querySelectorAll("[role=tab]")];
for (const tab of tabs) {
  const choose = (chosen) => {
    stop();
    set({ view: chosen.dataset.view });
    chosen.focus();
  };
  tab.onclick = () => choose(tab);
  tab.onkeydown = (event) => {
    const turn = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const open = tabs.filter((x) => !x.hidden);
    if (turn) choose(open.at((open.indexOf(tab) + turn) % open.length));
  };
}

/** Arrow keys step, wherever they have nothing else to do. */
document.addEventListener("keydown", (event) => {
  if (
    event.altKey ||
    event.ctrlKey ||
    event.metaKey ||
    event.target.closest?.("input, select, textarea, [role=tab]")
  )
    return;
  const way = {
    ArrowRight: () => go(state.step + 1),
    ArrowLeft: () => go(state.step - 1),
    Home: () => go(0),
    End: () => go(Infinity),
  }[event.key];
  if (!way) return;
  event.preventDefault();
  way();
});

/** A click on a class of the target makes it the right one; one on a node goes to its next step. */
at("graph").addEventListener("click", ({ target }) => {
  const node = target.closest("[data-node]");
  if (!node) return;
  const id = Number(node.dataset.node);
  if (id === lesson().roles.y && target.matches(".value text:not(.head)"))
    return chooseClass([...target.parentNode.children].indexOf(target) - 1);
  if (state.view === "predict") return;
  const all = current().steps.flatMap((step, i) => (step.node === id ? [i] : []));
  const later = all.find((i) => i > state.step) ?? all[0];
  if (later !== undefined) go(later);
});

addEventListener("hashchange", () => {
  readAddress();
  set({});
});
readAddress();
render();
