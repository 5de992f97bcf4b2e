"""What the components of LlamaIndex and LangChain share: fields, candidates, and the model of a pipeline."""
