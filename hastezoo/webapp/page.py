"""The page: a header and four tabs."""

from __future__ import annotations

from functools import partial
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
                views = compare.build(studio)
            with gr.Tab("Evaluate", id="evaluate") as measuring:
                evaluated = evaluate.build(studio)
            with gr.Tab("Zoo", id="zoo") as looking:
                listed = zoo.build(studio)
        places = [
            links.Place("generate", generating, generated, partial(generate.show, studio)),
            links.Place("compare", views.first, views.compared, partial(views.compared.show, studio)),
            links.Place("sweep", views.second, views.swept, partial(views.swept.show, studio)),
            links.Place("evaluate", measuring, evaluated, partial(evaluate.show, studio)),
            links.Place("zoo", looking, listed, partial(zoo.show, studio)),
        ]
        links.follow(page, places, tabs, views.tabs)
        for sampler in (generated.sampler, *views.samplers, evaluated.sampler):
            controls.draw_interval(page.load, sampler)
        for button, place in ((listed.generate, places[0]), (listed.evaluate, places[3])):
            _go(button, listed.model, place, tabs)
    return page


def _go(button: gr.Button, model: gr.Textbox, place: links.Place, tabs: gr.Tabs) -> None:
    """Let a button show the chosen checkpoint in another tab."""

    def shown(name: Any) -> list[Any]:
        return [gr.update(selected=place.name), *place.show({"model": name})]

    button.click(shown, model, [tabs, *place.controls.shown], **QUIET)
