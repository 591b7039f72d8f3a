"""The Gradio app: a page and an API over the pipeline and the evaluation.

`settings` and `turns` know nothing of Gradio; `drawing` and `evaluating` are the work that waits for its turn; `tabs`
are what a person sees; `api` is what a program calls; `server` binds both to a port.
"""
