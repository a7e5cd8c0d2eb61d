"""Selectors, which choose samples to share within a budget: one method per file, one interface."""

from lit_valuation.selectors.base import Pool, Selection, Selector, split_budget
from lit_valuation.selectors.binning import BinningSelector
from lit_valuation.selectors.facility_location_mi import FacilityLocationMISelector
from lit_valuation.selectors.feature_similarity import FeatureSimilaritySelector
from lit_valuation.selectors.full_information import FullInformation
from lit_valuation.selectors.func_feat import FuncFeatSelector
from lit_valuation.selectors.gradient_matching import GradientMatchingSelector
from lit_valuation.selectors.k_center import KCenterSelector
from lit_valuation.selectors.knn_shapley import KNNShapleySelector
from lit_valuation.selectors.random import RandomSelector

__all__ = [
    "BinningSelector",
    "FacilityLocationMISelector",
    "FeatureSimilaritySelector",
    "FullInformation",
    "FuncFeatSelector",
    "GradientMatchingSelector",
    "KCenterSelector",
    "KNNShapleySelector",
    "Pool",
    "RandomSelector",
    "Selection",
    "Selector",
    "split_budget",
]
