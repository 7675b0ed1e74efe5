//! Places the boxes of a graph in layers: each below what feeds it, edges short, few of them crossing.

/// Sweeps over the layers, for order and then for place; more change little.
const SWEEPS: usize = 12;

/// Where boxes lie and edges run, in units of boxes and layers.
pub struct Layout {
    /// The middle of each box and its layer, counted from the top.
    pub boxes: Vec<(f64, usize)>,
    /// The edges: from box, to box, and where they pass each layer between.
    pub edges: Vec<(usize, usize, Vec<f64>)>,
    /// The farthest right that a box or edge lies.
    pub width: f64,
    /// Number of layers.
    pub layers: usize,
}

/// Points to place: the boxes first, then one for each layer that an edge passes.
struct Points {
    layer: Vec<usize>,
    above: Vec<Vec<usize>>,
    below: Vec<Vec<usize>>,
    boxes: usize,
}

impl Points {
    fn new(layer: Vec<usize>) -> Self {
        let boxes = layer.len();
        Self { layer, above: vec![Vec::new(); boxes], below: vec![Vec::new(); boxes], boxes }
    }

    fn pass(&mut self, layer: usize) -> usize {
        self.layer.push(layer);
        self.above.push(Vec::new());
        self.below.push(Vec::new());
        self.layer.len() - 1
    }

    fn join(&mut self, upper: usize, lower: usize) {
        self.below[upper].push(lower);
        self.above[lower].push(upper);
    }

    /// The room that a point needs to each side.
    fn half(&self, point: usize) -> f64 {
        if point < self.boxes { 0.5 } else { 0.12 }
    }
}

/// Lays out a graph given by the inputs of each box; inputs come before those they feed.
pub fn layout(inputs: &[Vec<usize>]) -> Layout {
    let layer = layers(inputs);
    let mut points = Points::new(layer.clone());
    let mut edges = Vec::new();
    for (to, from) in inputs.iter().enumerate().flat_map(|(to, from)| from.iter().map(move |&from| (to, from))) {
        let mut last = from;
        let mut passed = Vec::new();
        for between in layer[from] + 1..layer[to] {
            let point = points.pass(between);
            points.join(last, point);
            passed.push(point);
            last = point;
        }
        points.join(last, to);
        edges.push((from, to, passed));
    }
    let count = layer.iter().max().map_or(0, |most| most + 1);
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (point, &layer) in points.layer.iter().enumerate() {
        rows[layer].push(point);
    }
    sort(&mut rows, &points);
    let x = place(&rows, &points);
    let left = x.iter().enumerate().map(|(point, x)| x - points.half(point)).fold(f64::INFINITY, f64::min);
    let right = x.iter().enumerate().map(|(point, x)| x + points.half(point)).fold(f64::NEG_INFINITY, f64::max);
    let edge = |(from, to, passed): (usize, usize, Vec<usize>)| {
        (from, to, passed.into_iter().map(|point| x[point] - left).collect())
    };
    Layout {
        boxes: layer.iter().enumerate().map(|(at, &layer)| (x[at] - left, layer)).collect(),
        edges: edges.into_iter().map(edge).collect(),
        width: if x.is_empty() { 0.0 } else { right - left },
        layers: count,
    }
}

/// The layer of each box: below its lowest input, and then as low as those that it feeds allow.
fn layers(inputs: &[Vec<usize>]) -> Vec<usize> {
    let mut layer = vec![0; inputs.len()];
    for (to, from) in inputs.iter().enumerate() {
        layer[to] = from.iter().map(|&from| layer[from] + 1).max().unwrap_or(0);
    }
    let mut lowest = vec![usize::MAX; inputs.len()];
    for to in (0..inputs.len()).rev() {
        if lowest[to] != usize::MAX {
            layer[to] = lowest[to];
        }
        for &from in &inputs[to] {
            lowest[from] = lowest[from].min(layer[to] - 1);
        }
    }
    layer
}

/// Orders each row by the middle of its neighbours, from above and from below in turn.
fn sort(rows: &mut [Vec<usize>], points: &Points) {
    let mut at: Vec<f64> = vec![0.0; points.layer.len()];
    let number = |row: &[usize], at: &mut [f64]| {
        for (index, &point) in row.iter().enumerate() {
            at[point] = index as f64 - row.len() as f64 / 2.0;
        }
    };
    for row in &*rows {
        number(row, &mut at);
    }
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        let order: Vec<usize> = if down { (0..rows.len()).collect() } else { (0..rows.len()).rev().collect() };
        for row in order {
            let near = if down { &points.above } else { &points.below };
            let wish = |point: &usize| mean(&near[*point], &at).unwrap_or(at[*point]);
            rows[row].sort_by(|a, b| wish(a).total_cmp(&wish(b)));
            number(&rows[row], &mut at);
        }
    }
}

/// Places each row as near to the middle of its neighbours as its order allows.
fn place(rows: &[Vec<usize>], points: &Points) -> Vec<f64> {
    let mut x: Vec<f64> = vec![0.0; points.layer.len()];
    for row in rows {
        spread(row, points, &mut x);
    }
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        let order: Vec<usize> = if down { (0..rows.len()).collect() } else { (0..rows.len()).rev().collect() };
        for row in order {
            for &point in &rows[row] {
                let both: Vec<usize> = points.above[point].iter().chain(&points.below[point]).copied().collect();
                x[point] = mean(&both, &x).unwrap_or(x[point]);
            }
            spread(&rows[row], points, &mut x);
        }
    }
    x
}

/// Moves the points of a row apart where they overlap, by as little as can be: the nearest places, by squares, that keep the
/// order. Points that push each other form a block that lies where its members wish on average.
fn spread(row: &[usize], points: &Points, x: &mut [f64]) {
    let mut offset = 0.0;
    let mut offsets = Vec::new();
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    for (index, &point) in row.iter().enumerate() {
        if index > 0 {
            offset += points.half(row[index - 1]) + points.half(point) + GAP;
        }
        offsets.push(offset);
        blocks.push((x[point] - offset, 1));
        while let [.., (before, many), (last, more)] = blocks[..] {
            if before <= last {
                break;
            }
            blocks.truncate(blocks.len() - 2);
            let all = many + more;
            blocks.push(((before * many as f64 + last * more as f64) / all as f64, all));
        }
    }
    let mut index = 0;
    for (start, many) in blocks {
        for _ in 0..many {
            x[row[index]] = start + offsets[index];
            index += 1;
        }
    }
}

/// Room between boxes.
const GAP: f64 = 0.16;

fn mean(points: &[usize], x: &[f64]) -> Option<f64> {
    if points.is_empty() {
        return None;
    }
    Some(points.iter().map(|&point| x[point]).sum::<f64>() / points.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_lie_below_their_inputs_and_beside_each_other() {
        let inputs = [vec![], vec![], vec![0], vec![0], vec![1, 2], vec![], vec![3, 4, 5], vec![6], vec![6, 0]];
        let found = layout(&inputs);
        for (to, from) in inputs.iter().enumerate() {
            assert!(from.iter().all(|&from| found.boxes[from].1 < found.boxes[to].1));
        }
        for (a, first) in found.boxes.iter().enumerate() {
            for second in &found.boxes[a + 1..] {
                assert!(first.1 != second.1 || (first.0 - second.0).abs() >= 1.0 + GAP - 1e-9);
            }
            assert!(first.0 >= 0.5 - 1e-9 && first.0 <= found.width - 0.5 + 1e-9);
        }
    }
}
