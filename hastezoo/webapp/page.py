"""The page: a header and four tabs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from hastezoo.webapp import api
from hastezoo.webapp.studio import Studio
from hastezoo.webapp.tabs import compare, controls, evaluate, generate, links, zoo
from hastezoo.webapp.tabs.controls import QUIET

if TYPE_CHECKING:
    from gradio.themes.base import Base

# Of the system: Gradio's own come from Google's servers, which slows the page and tells them who looks at it.
FONT = ["ui-sans-serif", "system-ui", "sans-serif"]
MONO = ["ui-monospace", "Consolas", "monospace"]

HEADER = (
    "<header class='hz-header'><h1>hastezoo</h1>"
    "<p>Pretrained diffusion transformers: SiT and MMDiT, plain, with REPA, with HASTE</p></header>"
)


def theme() -> Base:
    """How everything looks, by day and by night."""
    return gr.themes.Base(
        primary_hue="indigo", neutral_hue="slate", radius_size="md", spacing_size="md", font=FONT, font_mono=MONO
    )


def build_page(studio: Studio) -> gr.Blocks:
    """The Blocks, not yet served."""
    with gr.Blocks(title="hastezoo", analytics_enabled=False, fill_width=True) as page:
        api.build(studio)  # first: its names are taken as they are
        gr.HTML(HEADER)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Generate", id="generate") as generating:
                generated = generate.build(studio)
            with gr.Tab("Compare", id="compare"):
                comparing = compare.build(studio)
            with gr.Tab("Evaluate", id="evaluate") as measuring:
                evaluated = evaluate.build(studio)
            with gr.Tab("Zoo", id="zoo") as looking:
                listed = zoo.build(studio)
        links.remember(generating, "generate", generated.fields)
        links.remember(measuring, "evaluate", evaluated.fields)
        links.remember(looking, "zoo", listed.fields)
        search = gr.Textbox(visible=False)

        def opened(address: str) -> list[Any]:
            query = links.parsed(address)
            values, notes = links.read(query, generated.fields)
            for note in notes:
                gr.Warning(note)
            shown = generate.show(studio, values) if values else [gr.skip()] * len(generated.shown)
            return [gr.update(selected=query["tab"][0]) if "tab" in query else gr.skip(), *shown]

        restored = page.load(opened, search, [tabs, *generated.shown], js="() => [hastezoo.opened]", **QUIET)
        restored.then(None, js="() => { hastezoo.ready = true; }", api_visibility="private")
        for sampler in (generated.sampler, *comparing, evaluated.sampler):
            controls.draw_interval(page.load, sampler)
    return page
