/** A graph's drawing: layers from the start on, and which nodes are at work. Pure. */
import type { Item } from "./stream";

export interface Drawable {
  nodes: { id: string; data?: { name?: string } | string }[];
  edges: { source: string; target: string; conditional?: boolean; data?: string }[];
}

export interface PlacedNode {
  id: string;
  label: string;
  x: number;
  y: number;
  width: number;
}

export interface PlacedEdge {
  path: string;
  conditional: boolean;
  label?: string;
  source: string;
  target: string;
}

export interface Drawing {
  nodes: PlacedNode[];
  edges: PlacedEdge[];
  width: number;
  height: number;
}

export const NODE_HEIGHT = 30;
const LAYER = 74;
const GAP = 28;
const LETTER = 7.4;
const MARGIN = 12;
const SWEEPS = 4;

export function draw({ nodes, edges }: Drawable): Drawing {
  const ids = nodes.map((node) => node.id);
  const known = new Set(ids);
  const wanted = edges.filter((edge) => known.has(edge.source) && known.has(edge.target));
  const back = backEdges(ids, wanted);
  const forward = wanted.filter((edge) => !back.has(edge));
  const layers = ordered(layered(ids, forward), forward);
  const placed = placedIn(layers);
  const right = Math.max(...[...placed.values()].map((node) => node.x + node.width / 2));
  let lane = 0;
  const drawn = wanted.map((edge): PlacedEdge => {
    const from = placed.get(edge.source)!;
    const to = placed.get(edge.target)!;
    const isBack = back.has(edge);
    if (isBack) lane++;
    const path = isBack ? around(from, to, right + lane * 14) : down(from, to);
    return { path, conditional: edge.conditional ?? false, label: edge.data, source: edge.source, target: edge.target };
  });
  return {
    nodes: [...placed.values()],
    edges: drawn,
    width: right + lane * 14 + MARGIN,
    height: layers.length * LAYER - LAYER + NODE_HEIGHT + 2 * MARGIN,
  };
}

type Edge = Drawable["edges"][number];

/** Edges that lead back to where a walk from the first node came by. */
function backEdges(ids: string[], edges: Edge[]): Set<Edge> {
  const out = Map.groupBy(edges, (edge) => edge.source);
  const state = new Map<string, "open" | "done">();
  const found = new Set<Edge>();
  for (const root of ids) {
    const stack: [string, number][] = state.has(root) ? [] : [[root, 0]];
    if (stack.length) state.set(root, "open");
    while (stack.length) {
      const top = stack[stack.length - 1]!;
      const edge = out.get(top[0])?.[top[1]++];
      if (!edge) {
        state.set(top[0], "done");
        stack.pop();
      } else if (state.get(edge.target) === "open") found.add(edge);
      else if (!state.has(edge.target)) {
        state.set(edge.target, "open");
        stack.push([edge.target, 0]);
      }
    }
  }
  return found;
}

/** Each node one layer below the lowest that leads to it. */
function layered(ids: string[], edges: Edge[]): string[][] {
  const depth = new Map(ids.map((id) => [id, 0]));
  const waits = new Map(ids.map((id) => [id, 0]));
  for (const edge of edges) waits.set(edge.target, waits.get(edge.target)! + 1);
  const out = Map.groupBy(edges, (edge) => edge.source);
  const ready = ids.filter((id) => waits.get(id) === 0);
  for (let at = 0; at < ready.length; at++) {
    for (const { source, target } of out.get(ready[at]!) ?? []) {
      depth.set(target, Math.max(depth.get(target)!, depth.get(source)! + 1));
      waits.set(target, waits.get(target)! - 1);
      if (waits.get(target) === 0) ready.push(target);
    }
  }
  if (depth.has("__end__")) depth.set("__end__", Math.max(...depth.values()) + 1); // alone, below all that may lead to it
  const layers: string[][] = [];
  for (const id of ids) (layers[depth.get(id)!] ??= []).push(id);
  return layers.filter(Boolean);
}

/** Nodes of a layer by the middle of their neighbours, so that fewer edges cross. */
function ordered(layers: string[][], edges: Edge[]): string[][] {
  const around = new Map<string, string[]>();
  for (const { source, target } of edges) {
    around.set(source, [...(around.get(source) ?? []), target]);
    around.set(target, [...(around.get(target) ?? []), source]);
  }
  let found = layers;
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const place = new Map(found.flatMap((layer) => layer.map((id, at) => [id, at - layer.length / 2] as const)));
    const middle = (id: string) => {
      const near = (around.get(id) ?? []).map((one) => place.get(one)!);
      return near.length ? near.reduce((sum, one) => sum + one, 0) / near.length : place.get(id)!;
    };
    found = found.map((layer) => layer.toSorted((a, b) => middle(a) - middle(b)));
  }
  return found;
}

function placedIn(layers: string[][]): Map<string, PlacedNode> {
  const label = (id: string) => id.replace(/^__(start|end)__$/, "$1");
  const widthOf = (id: string) => Math.min(260, Math.max(56, label(id).length * LETTER + 20));
  const widths = layers.map((layer) => layer.reduce((sum, id) => sum + widthOf(id) + GAP, -GAP));
  const middle = Math.max(...widths) / 2 + MARGIN;
  const placed = new Map<string, PlacedNode>();
  layers.forEach((layer, depth) => {
    let left = middle - widths[depth]! / 2;
    for (const id of layer) {
      const width = widthOf(id);
      placed.set(id, { id, label: label(id), x: left + width / 2, y: MARGIN + depth * LAYER, width });
      left += width + GAP;
    }
  });
  return placed;
}

function down(from: PlacedNode, to: PlacedNode): string {
  const [x1, y1, x2, y2] = [from.x, from.y + NODE_HEIGHT, to.x, to.y];
  const bend = (y2 - y1) / 2;
  return `M${x1} ${y1}C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2 - 5}`;
}

function around(from: PlacedNode, to: PlacedNode, x: number): string {
  // Out at the bottom, since another node may stand at the side.
  const [x1, y1] = [from.x + from.width / 4, from.y + NODE_HEIGHT];
  const [x2, y2] = [to.x + to.width / 2 + 5, to.y + NODE_HEIGHT / 2];
  const low = y1 + (LAYER - NODE_HEIGHT) / 2;
  return `M${x1} ${y1}C${x1} ${low} ${x} ${low} ${x} ${y1 - NODE_HEIGHT}V${y2 + NODE_HEIGHT}Q${x} ${y2} ${x2} ${y2}`;
}

/** What a node has done so far. */
export interface NodeWork {
  /** Ids of its tasks that go on, with when they were seen to begin, in milliseconds since 1970. */
  begun: Readonly<Record<string, number>>;
  done: number;
  ms: number;
  failed: boolean;
}

export type Work = Readonly<Record<string, NodeWork>>;

interface Task {
  id?: string;
  name?: string;
  error?: unknown;
  result?: unknown;
  interrupts?: unknown[];
}

/** Return *was* after an event of the mode `tasks` that came at *now*. */
export function follow(was: Work, item: Item, now: number): Work {
  const [mode, ...namespaces] = item.event.split("|");
  const task = item.data as Task | undefined;
  if (mode !== "tasks" || !task?.id || !task.name) return was;
  const name = [...namespaces.map((one) => one.split(":", 1)[0]!), task.name].join(":");
  const node = was[name] ?? { begun: {}, done: 0, ms: 0, failed: false };
  const isOver = "result" in task || "error" in task || "interrupts" in task;
  if (!isOver) return { ...was, [name]: { ...node, begun: { ...node.begun, [task.id]: now } } };
  const { [task.id]: since, ...others } = node.begun;
  return {
    ...was,
    [name]: { begun: others, done: node.done + 1, ms: node.ms + (since === undefined ? 0 : now - since), failed: Boolean(task.error) },
  };
}
