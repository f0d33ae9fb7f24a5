"""The extraction model: backbone, fine-tuning method and heads; its checkpoints and distribution over processes."""
