"""The catalogue: pipelines and cards from YAML, ours and a user's."""

from vramplan.catalog.card_choice import CardChoice
from vramplan.catalog.cards import load_card_file, match_card, usable_bytes
from vramplan.catalog.entries import find_alike, find_pipeline
from vramplan.catalog.pipelines import load_pipeline_file
from vramplan.catalog.search import Catalog, load_catalog, user_folders, validate
from vramplan.catalog.shipped import profiles_dir

__all__ = [
    "CardChoice",
    "Catalog",
    "find_alike",
    "find_pipeline",
    "load_card_file",
    "load_catalog",
    "load_pipeline_file",
    "match_card",
    "profiles_dir",
    "usable_bytes",
    "user_folders",
    "validate",
]
