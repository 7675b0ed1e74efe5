//! What a model folder holds and what working with it takes, told from its descriptions alone: no weight is read.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::checkpoint::gguf::read::Gguf;
use crate::decoder::packed::packed_bytes;
use crate::tokens::facts::TokenizerFacts;
use crate::{
    Checkpoint, Compute, DecoderConfig, ExpertId, Experts, Layout, ModelError, Positions, Precision, Rotary,
    RotaryScaling, Text, WeightId, memory,
};

/// A model folder, looked at from outside.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// The family's name.
    pub family: String,
    /// Number of blocks.
    pub layers: usize,
    /// `d`.
    pub hidden: usize,
    /// `f`, the size of a key in layers with one feed-forward.
    pub feed_forward: usize,
    /// The mixture of experts that layers have instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experts: Option<Experts>,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Size of one head.
    pub head_dim: usize,
    /// Context in tokens.
    pub context: usize,
    /// The narrowest attention window, where a layer has one.
    pub window: Option<usize>,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// How positions enter, in words.
    pub positions: String,
    /// Whether the head is the transposed embedding.
    pub tied_head: bool,
    /// Number of parameters.
    pub parameters: usize,
    /// Parameters by the type in which they are stored.
    pub dtypes: BTreeMap<String, usize>,
    /// The weight files.
    pub shards: Vec<Shard>,
    /// Bytes of the weight files together.
    pub disk: u64,
    /// The tokenizer.
    pub tokenizer: TokenizerFacts,
    /// The weight of each layer that editing changes.
    pub editable: Vec<EditableWeight>,
    /// What the stages take.
    pub memory: MemoryNeeds,
}

/// One weight file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shard {
    /// Its name in the folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// A weight that editing can change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EditableWeight {
    /// Its layer.
    pub layer: usize,
    /// Which of the layer's experts it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expert: Option<ExpertId>,
    /// Its name as stored; of an expert that lies in one tensor with others, that tensor's.
    pub name: String,
    /// Its shape as stored.
    pub shape: Vec<usize>,
    /// The type in which it is stored.
    pub dtype: String,
    /// The file that holds it.
    pub file: String,
}

/// Bytes that stages take. All but the first come on top of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryNeeds {
    /// The weights in f32, once for all stages of a run.
    pub weights: u64,
    /// The weights in bf16 or f16.
    pub weights_half: u64,
    /// The weights in f32 where blocks are streamed: what is in no block, and two blocks.
    pub weights_streamed: u64,
    /// Bytes that a pass over streamed blocks reads of the files.
    pub pass: u64,
    /// `targets` where blocks are streamed, for each request optimised at once: an estimate, see [`request_bytes_streamed`].
    pub targets_request_streamed: u64,
    /// `covariance`, for each layer: the sum `f × f` in f64, or that of each expert.
    pub covariance_layer: u64,
    /// `targets`, for each request optimised at once: an estimate, see [`request_bytes`].
    pub targets_request: u64,
    /// `solve`, for each layer: a matrix `f × f` in f64, or those of the experts that one key is routed to. A second moment is factored where it lies.
    pub solve_layer: u64,
    /// `solve`, while the eigenvectors for a projector are computed: four such matrices. A mixture has no projector.
    pub solve_projector: u64,
    /// `evaluate` and `templates`, while several texts are written: copies of the weights, where half of what is free holds them.
    pub texts: u64,
    /// What is free now; none where the system does not say.
    pub available: Option<u64>,
}

/// Looks at a folder, or a GGUF file.
///
/// # Errors
/// Whatever would keep the folder from being loaded, memory apart: see [`DecoderConfig::read`], [`Checkpoint::files`],
/// [`Checkpoint::open`], [`Checkpoint::check`], [`Text::open`].
pub fn inspect(folder: &Path) -> Result<Inspection, ModelError> {
    let need = |name: &str, hint: &str| {
        let path = folder.join(name);
        let missing = || ModelError::MissingFile { folder: folder.into(), name: name.into(), hint: hint.into() };
        path.is_file().then_some(path).ok_or_else(missing)
    };
    let gguf = Gguf::is(folder);
    let path = if gguf {
        folder.to_owned()
    } else {
        need("config.json", "give the folder that holds config.json, tokenizer.json and model.safetensors")?
    };
    let config = DecoderConfig::read(&path)?;
    let (names, paths) = if gguf {
        (vec![folder.file_name().unwrap_or_default().to_string_lossy().into_owned()], vec![folder.to_owned()])
    } else {
        let names = Checkpoint::files(folder)?;
        let paths = names.iter().map(|name| folder.join(name)).collect();
        (names, paths)
    };
    let checkpoint = Checkpoint::open(&paths)?;
    let layout = Layout::of(&config);
    checkpoint.check(&config, &layout)?;
    let mut text = if gguf { Text::open(folder)? } else { Text::open(&need("tokenizer.json", Text::MISSING)?)? };
    let settings = folder.join("tokenizer_config.json");
    if !gguf && settings.is_file() {
        text = text.with_settings(&settings)?;
    }

    let mut dtypes = BTreeMap::new();
    for (name, shape) in layout.tensors(&config) {
        if let Some((dtype, _)) = checkpoint.stored(&name) {
            *dtypes.entry(dtype).or_insert(0) += shape.iter().product::<usize>();
        }
    }
    let weights = (0..config.layers).flat_map(|layer| match config.mixture(layer) {
        Some(experts) => experts.ids().map(|id| WeightId::of_expert(layer, id)).collect(),
        None => vec![WeightId::down(layer)],
    });
    let editable = weights.filter_map(|weight| {
        let name = layout.weight_name(weight)?;
        let [out, input] = config.weight_shape(weight)?;
        let (dtype, file) = checkpoint.stored(&name)?;
        Some(EditableWeight {
            layer: weight.layer,
            expert: weight.expert,
            shape: layout.stored_shape(input, out),
            dtype,
            file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            name: checkpoint.stored_name(&name)?.to_owned(),
        })
    });
    let editable = editable.collect();
    let shards = names.into_iter().zip(&paths).map(|(name, path)| {
        let facts = std::fs::metadata(path).map_err(|e| ModelError::io(path, e))?;
        Ok(Shard { name, bytes: facts.len() })
    });
    let shards: Vec<Shard> = shards.collect::<Result<_, ModelError>>()?;
    Ok(Inspection {
        family: config.family.name().into(),
        layers: config.layers,
        hidden: config.hidden,
        feed_forward: config.feed_forward,
        experts: config.experts.clone(),
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        context: config.context,
        window: config.windows.iter().flatten().min().copied(),
        vocabulary: config.vocab,
        positions: positions(&config.positions),
        tied_head: config.tied_head,
        parameters: config.parameters(),
        dtypes,
        disk: shards.iter().map(|shard| shard.bytes).sum(),
        shards,
        tokenizer: text.facts(),
        editable,
        memory: MemoryNeeds::of(&config, checkpoint.bytes_of_blocks(&config, &layout)),
    })
}

impl MemoryNeeds {
    /// Of a model of this shape, on this machine, of which a pass over streamed blocks reads so many bytes.
    pub fn of(config: &DecoderConfig, pass: u64) -> Self {
        let square = |f: usize| (f as u64).saturating_pow(2).saturating_mul(size_of::<f64>() as u64);
        let most = |of: &dyn Fn(usize) -> u64| (0..config.layers).map(of).max().unwrap_or(0);
        // Of a mixture of experts, each expert has a sum of its own, and what an edit is not routed to is not factored.
        let parts = |layer: usize| config.key_parts(layer).into_iter().map(|part| square(part.len()));
        let used = |layer: usize| match config.mixture(layer) {
            Some(experts) => square(experts.size).saturating_mul(experts.top as u64) + experts.shared.map_or(0, square),
            None => square(config.feed_forward),
        };
        Self {
            weights: memory::needed(config, Precision::F32),
            weights_half: memory::needed(config, Precision::Bf16),
            weights_streamed: memory::needed_streamed(config, Precision::F32),
            pass,
            targets_request_streamed: request_bytes_streamed(config, config.layers),
            covariance_layer: most(&|layer| parts(layer).fold(0, u64::saturating_add)),
            targets_request: request_bytes(config, config.layers),
            solve_layer: most(&used),
            solve_projector: match config.experts {
                Some(_) => 0,
                None => square(config.feed_forward).saturating_mul(4),
            },
            texts: packed_bytes(config, Compute::F32),
            available: memory::available(),
        }
    }
}

/// Bytes that one request's target takes while it is optimised, when it has six templates and the essence prompt, eight
/// tokens of each from the subject's last on, and one target token: what the blocks keep for the way back (some ten
/// vectors of size `d` and six of size `f` a position), in `above` layers, and four copies of the logits.
pub fn request_bytes(config: &DecoderConfig, above: usize) -> u64 {
    let (rows, positions) = (7, 7 * 8);
    let kept = 10 * config.hidden as u64 + 6 * config.used_key() as u64;
    let blocks = (above as u64).saturating_mul(positions).saturating_mul(kept);
    blocks.saturating_add(4 * rows * config.vocab as u64).saturating_mul(size_of::<f32>() as u64)
}

/// The same where blocks are streamed: what went into each block, the keys and values before it, and what one block keeps for the way back.
pub fn request_bytes_streamed(config: &DecoderConfig, above: usize) -> u64 {
    let positions = 7 * 8;
    let kept = (config.hidden + 2 * config.kv_heads * config.head_dim) as u64;
    let inputs = (above as u64).saturating_mul(positions).saturating_mul(kept).saturating_mul(size_of::<f32>() as u64);
    inputs.saturating_add(request_bytes(config, above.min(1)))
}

fn positions(positions: &Positions) -> String {
    match positions {
        Positions::Learned { .. } => "learned".into(),
        Positions::Alibi { .. } => "linear biases of attention (ALiBi)".into(),
        Positions::Rotary(Rotary { dim, theta, scaling, .. }) => {
            let scaling = match scaling {
                None => String::new(),
                Some(RotaryScaling::Linear { factor }) => format!(", stretched {factor} times"),
                Some(RotaryScaling::Llama3 { factor, .. }) => format!(", long waves stretched {factor} times"),
                Some(RotaryScaling::Yarn { factor, .. }) => format!(", long waves stretched {factor} times (YaRN)"),
                Some(RotaryScaling::Each { .. }) => ", each wave stretched by a factor of its own".into(),
            };
            format!("rotary over {dim} dimensions of a head, base {theta}{scaling}")
        }
    }
}
