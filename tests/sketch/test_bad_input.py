"""What cannot be sketched, merged or read is refused with a sentence that says what to do."""

from __future__ import annotations

import json
import pickle
import struct
import zlib

import numpy as np
import pytest

from actisketch.pipeline.sketch import ChannelSketch, PointSketch, Sketch, SketchSpec, merge_sketches
from actisketch.storage.errors import FormatError, InputError

from .distributions import make


@pytest.mark.usefixtures("engine")
class TestNonFiniteValues:
    @pytest.mark.parametrize("size", [3, 50_000])
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_are_refused_with_point_block_and_first_index(self, bad: float, size: int) -> None:
        samples = np.ones((4, size, 2), np.float32)
        samples[2, 1, 1] = samples[3, 0, 0] = bad
        point = PointSketch.empty(SketchSpec(per_channel=True), 2)
        before = point.to_bytes()
        with pytest.raises(
            InputError, match=r"point 'conv1', block 5: .*first at index \(2, 1, 1\)"
        ) as caught:
            point.update(samples, point="conv1", block=5)

        assert (caught.value.point, caught.value.block, caught.value.index) == ("conv1", 5, (2, 1, 1))
        assert point.to_bytes() == before
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)

    def test_are_counted_and_left_out_when_the_user_says_so(self) -> None:
        samples = np.array([[1, np.nan], [np.inf, 2], [-np.inf, 3]], np.float32)
        point = PointSketch.empty(SketchSpec(on_nonfinite="exclude", per_channel=True), 2)
        point.update(samples)

        assert (point.layer.n, point.layer.n_nan, point.layer.n_inf) == (3, 1, 2)
        assert point.channels is not None
        assert point.channels.n.tolist() == [1, 2]
        assert point.channels.n_inf.tolist() == [2, 0]

    def test_stay_left_out_after_merging_and_a_round_trip(self) -> None:
        bad, spec = np.full((1, 2), np.nan, np.float32), SketchSpec(on_nonfinite="exclude", per_channel=True)
        points = [PointSketch.empty(spec, 2), PointSketch.empty(spec, 2)]
        for merged in (
            points[0],
            merge_sketches(points),
            points[0].merge(points[1]),
            PointSketch.from_bytes(points[0].to_bytes()),
        ):
            merged.update(bad)
            merged.layer.update(bad)
            assert merged.channels is not None
            merged.channels.update(bad)
            merged.channels.channel(0).update(bad)

            assert merged.layer.n_nan == 4
            assert merged.channels.n_nan.tolist() == [2, 2]
        for one, other in (("exclude", "error"), ("error", "exclude")):
            layer = Sketch(on_nonfinite=one).merge(Sketch(on_nonfinite=other))  # type: ignore[arg-type]  # both are known
            channels = ChannelSketch(2, on_nonfinite=one).merge(ChannelSketch(2, on_nonfinite=other))  # type: ignore[arg-type]  # the same
            layer.update(bad)
            channels.update(bad)

            assert (layer.n_nan, channels.n_nan.tolist()) == (2, [1, 1])
        with pytest.raises(InputError, match="2 NaN"):
            Sketch().merge(Sketch()).update(bad)


class TestArrays:
    def test_with_a_mask_are_refused_and_told_what_to_do(self) -> None:
        masked = np.ma.masked_greater(np.ones((3, 2), np.float32), 0.5)
        for sketch in (Sketch(), ChannelSketch(2), PointSketch.empty(SketchSpec())):
            with pytest.raises(InputError, match=r"\.compressed\(\).*\.filled\(value\)"):
                sketch.update(masked)

    @pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_, np.complex64, np.float64])
    def test_of_other_dtypes_are_refused(self, dtype: type) -> None:
        with pytest.raises(InputError, match=np.dtype(dtype).name):
            Sketch().update(np.ones(3, dtype))

    def test_of_another_number_of_channels_are_refused(self) -> None:
        with pytest.raises(InputError, match="has 3 channels on axis 1, this sketch has 2"):
            ChannelSketch(2).update(np.ones((4, 3), np.float32))

    def test_without_the_channel_axis_are_refused(self) -> None:
        with pytest.raises(InputError, match="choose from -2 to 1"):
            ChannelSketch(2).update(np.ones((4, 2), np.float32), channel_axis=2)


class TestSettings:
    @pytest.mark.parametrize("bits", [11, 23, 20.0, True, "20"])
    def test_bits_out_of_range_are_refused(self, bits: object) -> None:
        with pytest.raises(InputError, match="from 12 to 22"):
            SketchSpec(bits=bits)  # type: ignore[arg-type]  # wrong on purpose

    def test_survive_a_dict_and_unknown_ones_are_refused(self) -> None:
        spec = SketchSpec(bits=18, per_channel=True, on_nonfinite="exclude")

        assert SketchSpec.from_dict(spec.to_dict()) == spec
        with pytest.raises(InputError, match="unknown sketch settings"):
            SketchSpec.from_dict({"bytes": 3})

    @pytest.mark.parametrize("q", [-0.1, 100.1, float("nan"), "many", None])
    def test_percentiles_outside_0_to_100_are_refused(self, q: float) -> None:
        with pytest.raises(InputError, match="from 0 to 100"):
            Sketch().percentile(q)

    def test_more_buckets_than_ids_are_refused(self) -> None:
        with pytest.raises(InputError, match="use channel_bits=14"):
            ChannelSketch(200_000, 16)


class TestMergingRefuses:
    def test_another_resolution(self) -> None:
        with pytest.raises(InputError, match="a sketch of 16 bits into one of 20"):
            Sketch(20).merge(Sketch(16))

    def test_another_number_of_channels(self) -> None:
        with pytest.raises(InputError, match="a sketch of 3 channels into one of 2"):
            ChannelSketch(2).merge(ChannelSketch(3))

    def test_other_settings_and_nothing_at_all(self) -> None:
        with pytest.raises(InputError, match="different settings"):
            merge_sketches([PointSketch.empty(SketchSpec()), PointSketch.empty(SketchSpec(bits=16))])
        with pytest.raises(InputError, match="nothing was recorded"):
            merge_sketches([])

    def test_counts_that_would_overflow(self) -> None:
        sketch = Sketch()
        sketch.update(np.ones(1, np.float32))
        for _ in range(50):
            sketch = sketch.merge(sketch)

        assert sketch.n == 2**50
        with pytest.raises(InputError, match="counts at most"):
            sketch.merge(sketch)


class TestBytes:
    def whole(self) -> bytes:
        point = PointSketch.empty(SketchSpec(per_channel=True), 20)
        point.update(make("rectified").reshape(-1, 20))
        return point.to_bytes()

    def test_survive_a_round_trip(self) -> None:
        data = self.whole()

        assert PointSketch.from_bytes(data).to_bytes() == data
        assert PointSketch.from_bytes(memoryview(data)) == PointSketch.from_bytes(data)

    def test_cut_off_anywhere_are_refused(self) -> None:
        data = self.whole()
        for end in [*range(40), *range(40, len(data), 997), len(data) - 1]:
            with pytest.raises(FormatError):
                PointSketch.from_bytes(data[:end])

    def test_with_any_bit_flipped_are_refused(self) -> None:
        data = self.whole()
        for place in [*range(40), *range(40, len(data), 997)]:
            harmed = bytearray(data)
            harmed[place] ^= 1 << (place % 8)
            with pytest.raises(FormatError):
                PointSketch.from_bytes(bytes(harmed))

    def test_of_a_newer_version_are_refused(self) -> None:
        for data, kind in ((self.whole(), PointSketch), (Sketch().to_bytes(), Sketch)):
            newer = data[:4] + bytes([9]) + data[5:]
            with pytest.raises(FormatError, match="version 9 is newer"):
                kind.from_bytes(newer)

    @pytest.mark.parametrize("changed", [{"colour": 3}, {"bits": "many"}, {"bits": 99}])
    def test_with_settings_of_a_newer_program_are_refused(self, changed: dict[str, object]) -> None:
        data = PointSketch.empty(SketchSpec()).to_bytes()
        (n_old,) = struct.unpack_from("<Q", data, 5)
        settings = json.dumps(SketchSpec().to_dict() | changed).encode()
        body = data[:5] + struct.pack("<Q", len(settings)) + settings + data[13 + n_old : -4]

        with pytest.raises(FormatError, match="newer"):
            PointSketch.from_bytes(body + struct.pack("<I", zlib.crc32(body)))

    def test_of_something_else_are_refused(self) -> None:
        with pytest.raises(FormatError, match="are not a point sketch"):
            PointSketch.from_bytes(b"PK\x03\x04 and so on")

    def test_of_a_layer_are_no_sketch_of_channels(self) -> None:
        assert ChannelSketch.from_bytes(Sketch().to_bytes()).n_channels == 1
        with pytest.raises(FormatError, match="20 channels"):
            Sketch.from_bytes(ChannelSketch(20).to_bytes())
