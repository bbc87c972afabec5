// A table for people: columns as wide as they need, three spaces between, as kubectl prints them.

export function renderTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [header, ...rows];
  const widths = header.map((_title, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  return all
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("     ")
        .trimEnd(),
    )
    .join("\n");
}

/** `5s`, `3m`, `23h`, `9d`: one unit, as kubectl shows ages. */
export function renderDuration(ms: number): string {
  const seconds = Math.round(Math.abs(ms) / 1_000);
  const text =
    seconds < 120
      ? `${seconds}s`
      : seconds < 7_200
        ? `${Math.floor(seconds / 60)}m`
        : seconds < 172_800
          ? `${Math.floor(seconds / 3_600)}h`
          : `${Math.floor(seconds / 86_400)}d`;
  return ms < 0 ? `-${text}` : text;
}
