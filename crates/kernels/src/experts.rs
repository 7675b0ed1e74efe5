//! A feed-forward: one for all tokens, or a mixture of experts, each of which computes the tokens that are routed to it.
//!
//! The experts of a layer lie side by side, as one wide feed-forward: outputs of the up- and gate-projections and inputs of the
//! down-projection of one expert after the other. A token uses those parts that it is routed to, each with a gate. With a part's key `k`
//! (the activation) and its gate `g`, the layer's output is `Σ W (g·k)` over the token's parts: the wide down-projection's product with
//! the wide key that holds each `g·k` in its part's place, and 0 elsewhere. That key is what editing looks at.
//!
//! Tokens of a part are gathered, multiplied, and their results added to their places in the order of the parts, so that a token's numbers
//! depend on no other token.

use std::ops::Range;

use crate::elementary::sigmoid;
use crate::{Activation, Matrix, Projection, Threads, activate, activate_back, probabilities};

/// How tokens find their experts.
#[derive(Clone, Debug)]
pub struct Experts<'a> {
    /// From the feed-forward's input to a score for each expert, `d × experts`.
    pub router: Projection<'a>,
    /// Experts that a token uses.
    pub top: usize,
    /// A token's gates are divided by their sum.
    pub normalised: bool,
    /// The expert that all tokens use, if there is one, has a gate of its own: the logistic function of this projection, `d × 1`.
    pub shared: Option<Projection<'a>>,
    /// Where each part lies in the wide feed-forward: the experts, and the shared one last.
    pub parts: Vec<Range<usize>>,
}

/// The tokens of each part of a mixture, in rising order, with their gates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Route {
    /// The part.
    pub part: usize,
    /// Its tokens.
    pub tokens: Vec<usize>,
    /// The gate of each.
    pub gates: Vec<f32>,
}

/// The projections of a feed-forward.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FeedForward<'a, 'b> {
    pub up: &'b Projection<'a>,
    pub gate: Option<&'b Projection<'a>>,
    pub activation: Activation,
    pub down: &'b Projection<'a>,
    pub experts: Option<&'b Experts<'a>>,
}

/// What the way back of a feed-forward needs.
#[derive(Clone, Debug)]
pub(crate) struct KeptInside {
    up: Vec<f32>,
    gate: Option<Vec<f32>>,
    routed: Option<KeptRoutes>,
}

/// Of a mixture: who went where. Outputs of the projections lie part after part.
#[derive(Clone, Debug)]
struct KeptRoutes {
    /// Of each token, the share of each expert, `[tokens, experts]`.
    shares: Vec<f32>,
    routes: Vec<Route>,
}

/// What a feed-forward computes.
pub(crate) struct Inside {
    /// The down-projection's input: `[tokens, f]`, or of a mixture, part after part, `[tokens of the part, f of the part]`.
    pub key: Vec<f32>,
    /// `[tokens, d]`.
    pub mlp: Vec<f32>,
    /// Of a mixture, the parts that have tokens.
    pub routes: Option<Vec<Route>>,
}

impl<'a> Projection<'a> {
    /// Some of the outputs.
    fn outputs(&self, range: &Range<usize>) -> Projection<'a> {
        let bias = self.bias.map(|bias| &bias[range.clone()]);
        Projection { weight: self.weight.outputs_in(range), packed: None, packed_back: None, bias }
    }

    /// Some of the inputs. A bias is the whole's alone.
    fn inputs(&self, range: &Range<usize>) -> Projection<'a> {
        Projection { weight: self.weight.from(range.start, range.len()), packed: None, packed_back: None, bias: None }
    }
}

impl FeedForward<'_, '_> {
    /// Runs the feed-forward on what it reads, `[tokens, d]`.
    pub fn forward(&self, input: &[f32], threads: Threads) -> Inside {
        let (inside, _) = self.run(input, threads, false);
        inside
    }

    /// As [`FeedForward::forward`], for the output alone and what [`FeedForward::back`] needs.
    pub fn forward_kept(&self, input: &[f32], threads: Threads) -> (Vec<f32>, KeptInside) {
        let (inside, kept) = self.run(input, threads, true);
        let kept = kept.unwrap_or(KeptInside { up: Vec::new(), gate: None, routed: None });
        (inside.mlp, kept)
    }

    fn run(&self, input: &[f32], threads: Threads, keep: bool) -> (Inside, Option<KeptInside>) {
        let Some(experts) = self.experts else {
            let up = self.up.forward(input, threads);
            let gate = self.gate.map(|gate| gate.forward(input, threads));
            let (key, kept) = self.activated(up, gate, None, keep);
            let mlp = self.down.forward(&key, threads);
            return (Inside { key, mlp, routes: None }, kept);
        };
        let d = self.up.weight.inputs();
        let (routes, shares) = experts.routes(input, threads);
        let (mut up, mut gate) = (Vec::new(), self.gate.map(|_| Vec::new()));
        for route in &routes {
            let range = &experts.parts[route.part];
            let rows = gathered(input, d, &route.tokens);
            up.extend(self.up.outputs(range).forward(&rows, threads));
            if let (Some(all), Some(projection)) = (&mut gate, self.gate) {
                all.extend(projection.outputs(range).forward(&rows, threads));
            }
        }
        let (mut key, mut kept) = self.activated(up, gate, None, keep);
        let mut mlp = vec![0.0; input.len() / d * self.down.weight.outputs()];
        let mut from = 0;
        for route in &routes {
            let range = &experts.parts[route.part];
            let own = &mut key[from..from + range.len() * route.tokens.len()];
            from += own.len();
            for (row, gate) in own.chunks_exact_mut(range.len()).zip(&route.gates) {
                for x in row {
                    *x *= gate;
                }
            }
            let out = self.down.inputs(range).forward(own, threads);
            scatter(&out, &mut mlp, self.down.weight.outputs(), &route.tokens);
        }
        if let Some(kept) = &mut kept {
            kept.routed = Some(KeptRoutes { shares, routes: routes.clone() });
        }
        (Inside { key, mlp, routes: Some(routes) }, kept)
    }

    fn activated(
        &self,
        up: Vec<f32>,
        gate: Option<Vec<f32>>,
        routed: Option<KeptRoutes>,
        keep: bool,
    ) -> (Vec<f32>, Option<KeptInside>) {
        if keep {
            let mut key = up.clone();
            activate(self.activation, &mut key, gate.as_deref());
            (key, Some(KeptInside { up, gate, routed }))
        } else {
            let mut key = up;
            activate(self.activation, &mut key, gate.as_deref());
            (key, None)
        }
    }

    /// The gradient with respect to what the feed-forward reads, `[tokens, d]`, given that with respect to its output. `input` is what it
    /// read, where it has experts.
    pub fn back(&self, kept: KeptInside, slope: &[f32], threads: Threads) -> Vec<f32> {
        let KeptInside { up, mut gate, routed } = kept;
        let (Some(experts), Some(KeptRoutes { shares, routes })) = (self.experts, routed) else {
            let mut at_up = self.down.back(slope, threads);
            activate_back(self.activation, &mut at_up, &up, gate.as_deref_mut());
            drop(up);
            let mut at_input = self.up.back(&at_up, threads);
            drop(at_up);
            if let (Some(projection), Some(at_gate)) = (self.gate, gate) {
                for (sum, more) in at_input.iter_mut().zip(projection.back(&at_gate, threads)) {
                    *sum += more;
                }
            }
            return at_input;
        };
        let (d, wide) = (self.up.weight.inputs(), self.down.weight.outputs());
        let tokens = slope.len() / wide;
        let count = experts.parts.len();
        // How the loss changes with each token's gates, `[tokens, parts]`.
        let mut at_gates = vec![0.0; tokens * count];
        let mut at_input = vec![0.0; tokens * d];
        let mut from = 0;
        for route in &routes {
            let range = &experts.parts[route.part];
            let own = from..from + range.len() * route.tokens.len();
            from = own.end;
            let up = &up[own.clone()];
            let gate = gate.as_deref_mut().map(|gate| &mut gate[own.clone()]);
            let mut key = up.to_vec();
            activate(self.activation, &mut key, gate.as_deref());
            let mut at_up = self.down.inputs(range).back(&gathered(slope, wide, &route.tokens), threads);
            let rows = at_up.chunks_exact_mut(range.len()).zip(key.chunks_exact(range.len()));
            for ((at_key, key), (token, weight)) in rows.zip(route.tokens.iter().zip(&route.gates)) {
                let along: f64 = at_key.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                at_gates[token * count + route.part] = along as f32;
                for x in at_key {
                    *x *= weight;
                }
            }
            match gate {
                Some(at_gate) => {
                    activate_back(self.activation, &mut at_up, up, Some(&mut *at_gate));
                    if let Some(projection) = self.gate {
                        scatter(&projection.outputs(range).back(at_gate, threads), &mut at_input, d, &route.tokens);
                    }
                }
                None => activate_back(self.activation, &mut at_up, up, None),
            }
            scatter(&self.up.outputs(range).back(&at_up, threads), &mut at_input, d, &route.tokens);
        }
        experts.routes_back(&routes, &shares, &at_gates, &mut at_input, threads);
        at_input
    }
}

impl Experts<'_> {
    fn count(&self) -> usize {
        self.router.weight.outputs()
    }

    /// The parts that have tokens, and each token's share of each expert: the softmax of the router's scores.
    fn routes(&self, input: &[f32], threads: Threads) -> (Vec<Route>, Vec<f32>) {
        let (count, d) = (self.count(), self.router.weight.inputs());
        let tokens = input.len() / d;
        let mut shares = self.router.forward(input, threads);
        let mut routes: Vec<Route> = (0..self.parts.len()).map(|part| Route { part, ..Route::default() }).collect();
        let mut best: Vec<usize> = Vec::with_capacity(count);
        for (token, row) in shares.chunks_exact_mut(count).enumerate() {
            let all = probabilities(row);
            for score in &mut *row {
                *score = all.log(*score).exp() as f32;
            }
            best.clear();
            best.extend(0..count);
            // Of equal shares the first.
            best.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            best.truncate(self.top);
            let sum: f32 = if self.normalised { best.iter().map(|&expert| row[expert]).sum() } else { 1.0 };
            for &expert in &best {
                routes[expert].tokens.push(token);
                routes[expert].gates.push(row[expert] / sum);
            }
        }
        if let (Some(shared), Some(route)) = (&self.shared, routes.get_mut(count)) {
            route.tokens = (0..tokens).collect();
            route.gates = shared.forward(input, threads).into_iter().map(sigmoid).collect();
        }
        routes.retain(|route| !route.tokens.is_empty());
        (routes, shares)
    }

    /// The way back through gates: adds to the gradient with respect to the input. Which experts a token uses does not change.
    fn routes_back(&self, routes: &[Route], shares: &[f32], at_gates: &[f32], at_input: &mut [f32], threads: Threads) {
        let (count, parts) = (self.count(), self.parts.len());
        let tokens = shares.len() / count.max(1);
        // Which experts each token uses, `[tokens, experts]`: its gate, or 0.
        let mut gates = vec![0.0f32; tokens * count];
        for route in routes.iter().filter(|route| route.part < count) {
            for (token, gate) in route.tokens.iter().zip(&route.gates) {
                gates[token * count + route.part] = *gate;
            }
        }
        let mut at_scores = vec![0.0; tokens * count];
        for (token, at_scores) in at_scores.chunks_exact_mut(count).enumerate() {
            let (gates, shares) = (&gates[token * count..][..count], &shares[token * count..][..count]);
            let at_gates = &at_gates[token * parts..][..count];
            // Normalised gates are a softmax over the used experts; others are shares of a softmax over all of them.
            let mean: f64 = gates.iter().zip(at_gates).map(|(g, at)| f64::from(*g) * f64::from(*at)).sum();
            for (expert, at_score) in at_scores.iter_mut().enumerate() {
                let own = f64::from(gates[expert]) * f64::from(at_gates[expert]);
                let weight = if self.normalised { gates[expert] } else { shares[expert] };
                *at_score = (own - f64::from(weight) * mean) as f32;
            }
        }
        add_to(at_input, &self.router.back(&at_scores, threads));
        if let (Some(shared), Some(route)) = (&self.shared, routes.iter().find(|route| route.part == count)) {
            let at_score = |(token, gate): (&usize, &f32)| at_gates[token * parts + count] * gate * (1.0 - gate);
            let at_scores: Vec<f32> = route.tokens.iter().zip(&route.gates).map(at_score).collect();
            add_to(at_input, &shared.back(&at_scores, threads));
        }
    }
}

impl Matrix<'_> {
    /// Some of the outputs.
    fn outputs_in(self, range: &Range<usize>) -> Self {
        Self { values: &self.values[range.start * self.output_stride..], outputs: range.len(), ..self }
    }
}

fn add_to(sum: &mut [f32], more: &[f32]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

/// Some rows of `x` `[tokens, size]`.
fn gathered(x: &[f32], size: usize, tokens: &[usize]) -> Vec<f32> {
    tokens.iter().flat_map(|token| &x[token * size..][..size]).copied().collect()
}

/// Adds rows to those of some tokens.
fn scatter(rows: &[f32], into: &mut [f32], size: usize, tokens: &[usize]) {
    for (row, token) in rows.chunks_exact(size).zip(tokens) {
        add_to(&mut into[token * size..][..size], row);
    }
}
