"""The factor on similarities stays between 1 and 100 (Radford et al., 2021, section 2.5)."""

import math

import pytest

from isthmus.models.dual_encoder import Scale


@pytest.mark.parametrize(("pushed", "kept"), [(math.log(250.0), 100.0), (-0.3, 1.0), (math.log(20.0), 20.0)])
def test_the_scale_is_brought_back_into_its_range(pushed: float, kept: float) -> None:
    scale = Scale(start=1 / 0.07, bias=-10.0)
    assert scale().item() == pytest.approx(1 / 0.07, rel=1e-6)
    scale.log_scale.data.fill_(pushed)
    scale.clamp()
    assert scale().item() == pytest.approx(kept, rel=1e-6)
    assert scale.bias is not None
    assert scale.bias.item() == -10.0
