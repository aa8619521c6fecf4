//! The tables, and the goals of the design beside what was measured.

use serde_json::json;

use crate::idle::Idle;
use crate::measure::{Row, Run, peer_of};
use crate::sources::Figure;
use crate::{Source, machine};

const MIB: f64 = 1024.0 * 1024.0;

/// Prints everything as Markdown.
pub fn print(rows: &[Row], idle: Option<&Idle>, sources: Option<&[Figure]>) {
    let mut section = "";
    for row in rows {
        if row.bench != section {
            section = &row.bench;
            println!("\n### {section}\n");
            println!(
                "| how | from | n | s: median (range) | MB/s | × nginx raw | CPU s: Nix | agents here | \
                 there | together | × nginx raw | MB on the link | RSS MiB here | there | load |"
            );
            println!("|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
        }
        println!("{}", line(rows, row));
    }
    if let Some(idle) = idle {
        print_idle(idle);
    }
    if let Some(sources) = sources {
        print_sources(sources);
    }
}

fn print_sources(figures: &[Figure]) {
    println!("\n### One NAR, links of its holders 200 Mbit/s\n");
    println!("| NAR, MiB | from one peer, ms | from three, ms | times |");
    println!("|--:|--:|--:|--:|");
    for Figure { bytes, one, three } in figures {
        let size = *bytes as f64 / MIB;
        println!("| {size:.1} | {one:.0} | {three:.0} | {:.2} |", three / one);
    }
}

fn line(rows: &[Row], row: &Row) -> String {
    let wall = row.median(|run| run.wall);
    let (least, most) = row.range(|run| run.wall);
    let raw = peer_of(rows, row, Source::Nginx.text());
    let ratio = |value: fn(&Run) -> f64| {
        raw.map_or_else(
            || "-".to_owned(),
            |raw| format!("{:.2}", row.median(value) / raw.median(value)),
        )
    };
    format!(
        "| {} | {} | {} | {wall:.2} ({least:.2}-{most:.2}) | {:.0} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {} | \
         {:.0} | {:.0} | {:.0} | {:.1} |",
        row.how,
        row.source,
        row.runs.len(),
        row.bytes as f64 / 1e6 / wall,
        ratio(|run| run.wall),
        row.median(|run| run.cpu_nix),
        row.median(|run| run.cpu_near),
        row.median(|run| run.cpu_far),
        row.median(Run::cpu),
        ratio(Run::cpu),
        row.median(|run| run.wire as f64 / 1e6),
        row.median(|run| run.rss_near as f64 / MIB),
        row.median(|run| run.rss_far as f64 / MIB),
        row.median(|run| run.load),
    )
}

fn print_idle(idle: &Idle) {
    let middle = idle.rss.len() / 2;
    println!("\n### Idle: {} paths, {} peers, {:.0} s\n", idle.paths, idle.peers, idle.seconds);
    println!("| | median | most of {} agents | goal |", idle.rss.len());
    println!("|---|--:|--:|--:|");
    println!(
        "| resident memory, MiB | {:.1} | {:.1} | 30 |",
        idle.rss[middle] as f64 / MIB,
        idle.rss.last().copied().unwrap_or(0) as f64 / MIB
    );
    println!(
        "| CPU, % of a core | {:.3} | {:.3} | 0.1 |",
        idle.cpu_percent[middle],
        idle.cpu_percent.last().copied().unwrap_or(0.0)
    );
    println!("\nFirst answer {:.2} s after the start; load {:.1}.", idle.start_seconds, idle.load);
}

/// Everything, every run.
pub fn json(rows: &[Row], idle: Option<&Idle>, sources: Option<&[Figure]>) -> String {
    let all =
        json!({ "machine": machine::describe(), "rows": rows, "idle": idle, "sources": sources });
    serde_json::to_string_pretty(&all).expect("plain data")
}
