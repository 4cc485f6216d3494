// Reads Prometheus' exposition. Knows no metric.

/** The value of each series without labels, and the sum over labels of the others, by name. Buckets are left out. */
export function readMetrics(text) {
  const values = new Map();
  for (const line of text.split("\n")) {
    if (line.startsWith("#") || line.includes("_bucket{")) continue;
    const [, name, value] = /^([^\s{]+)(?:\{.*\})?\s+(\S+)/.exec(line) ?? [];
    if (name) values.set(name, (values.get(name) ?? 0) + Number(value));
  }
  return values;
}
