/** The drawing of a graph, with the nodes that are at work. */
import { useMemo } from "preact/hooks";
import { duration } from "./format";
import { type Drawable, NODE_HEIGHT, type Work, draw } from "./graph";

export function GraphView({ graph, work = {} }: { graph: Drawable; work?: Work }) {
  const drawing = useMemo(() => draw(graph), [graph]);
  return (
    <div class="graph">
      <svg
        width={drawing.width}
        height={drawing.height}
        viewBox={`0 0 ${drawing.width} ${drawing.height}`}
        role="img"
        aria-label={`Graph of ${drawing.nodes.length} nodes: ${drawing.nodes.map((node) => node.label).join(", ")}`}
      >
        <defs>
          <marker id="arrow" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse">
            <path d="M0 0 8 4 0 8z" class="graph-arrow" />
          </marker>
        </defs>
        {drawing.edges.map((edge, at) => (
          <path key={at} d={edge.path} class={edge.conditional ? "graph-edge conditional" : "graph-edge"} marker-end="url(#arrow)">
            {edge.label && <title>{edge.label}</title>}
          </path>
        ))}
        {drawing.nodes.map((node) => {
          const done = work[node.id];
          const active = done && Object.keys(done.begun).length > 0;
          const state = active ? "active" : done?.failed ? "failed" : done ? "done" : "";
          return (
            <g key={node.id} class={`graph-node ${state}`}>
              <title>{node.id}</title>
              <rect x={node.x - node.width / 2} y={node.y} width={node.width} height={NODE_HEIGHT} rx="6" />
              <text x={node.x} y={node.y + NODE_HEIGHT / 2 + 4}>
                {node.label.length > 33 ? `${node.label.slice(0, 32)}…` : node.label}
              </text>
              {done && (
                <text x={node.x} y={node.y + NODE_HEIGHT + 14} class="graph-time">
                  {active ? "at work" : duration(done.ms / 1000)}
                  {done.done > 1 ? ` · ${done.done}×` : ""}
                </text>
              )}
            </g>
          );
        })}
      </svg>
    </div>
  );
}
