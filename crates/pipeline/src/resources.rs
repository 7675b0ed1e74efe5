//! What stages need of the machine while they run.

/// CPU cores that a stage needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    /// All there are: work that is parallel by itself, such as anything that runs a model.
    All,
    /// So many; 0 for next to none.
    Count(usize),
}

/// What a stage needs while it runs. Stages that do not need each other run side by side where the machine has what they
/// need together; one that needs more than the machine has runs alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// CPU cores.
    pub cores: Cores,
    /// Bytes of memory at its peak, where that is known beforehand; else 0.
    pub memory: u64,
    /// Whether it computes on the GPU when there is one.
    pub gpu: bool,
}

impl Resources {
    /// The whole machine: no other stage of weight runs beside it.
    pub const MACHINE: Self = Self { cores: Cores::All, memory: 0, gpu: false };
    /// Next to nothing: reads a small file, does a little arithmetic. Runs beside anything.
    pub const LIGHT: Self = Self { cores: Cores::Count(0), memory: 0, gpu: false };

    /// So many cores.
    pub const fn cores(count: usize) -> Self {
        Self { cores: Cores::Count(count), memory: 0, gpu: false }
    }

    /// The same, with so many bytes of memory.
    #[must_use]
    pub const fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// The same, with the GPU.
    #[must_use]
    pub const fn gpu(mut self) -> Self {
        self.gpu = true;
        self
    }
}
