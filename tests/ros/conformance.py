"""What every transport must do. A test class inherits ``TransportConformance`` and says how to make one."""

import threading
import time
from collections.abc import Callable

import pytest

from mobile_vla.core import ConfigError, Twist
from mobile_vla.ros import messages, topics
from mobile_vla.ros.messages import TransportError
from mobile_vla.ros.topics import Qos, Topic
from mobile_vla.ros.transport import NodeConfig, Received, Transport

LONG_S = 20.0
WORDS = Topic("words", "std_msgs/msg/String", Qos.DEFAULT, None, None, "test", "reliable, ten are kept")
SPEED = Topic("speed", "geometry_msgs/msg/Twist", Qos.NEWEST, 50.0, None, "test", "the newest alone")
STATE = Topic("state", "std_msgs/msg/String", Qos.LATCHED, None, None, "test", "for who comes late too")


def eventually(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + LONG_S
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


class Heard:
    """A callback that keeps what it was given."""

    def __init__(self) -> None:
        self.all: list[Received] = []

    def __call__(self, received: Received) -> None:
        self.all.append(received)

    @property
    def words(self) -> list[str]:
        return [received.message.data for received in self.all]


class TransportConformance:
    """Needs ``connect(config)`` and ``write_bytes(transport, topic, data)``, which writes CDR that was not checked."""

    def connect(self, config: NodeConfig) -> Transport:
        raise NotImplementedError

    def write_bytes(self, transport: Transport, topic: Topic, data: bytes) -> None:
        raise NotImplementedError

    @pytest.fixture
    def make(self, domain, namespace):
        made = []

        def one(name="node", **settings):
            usual = {"namespace": namespace, "domain": domain, "localhost_only": True}
            made.append(self.connect(NodeConfig(name, **{**usual, **settings})))
            return made[-1]

        yield one
        for transport in made:
            transport.close()
        assert not [t.name for t in threading.enumerate() if namespace in t.name], "a thread outlived its transport"

    @pytest.fixture
    def pair(self, make):
        return make("writer"), make("reader")

    def test_the_node_has_its_full_name(self, make, namespace):
        assert make("control").node == f"{namespace}/control"

    @pytest.mark.parametrize("name", ["", "1st", "two words", "a/b", "käfer"])
    def test_a_name_that_ros_does_not_allow_is_refused(self, make, name):
        with pytest.raises(ConfigError, match="cannot name a node"):
            make(name)

    def test_a_message_arrives_as_it_was_sent_with_the_time_of_its_arrival(self, pair):
        writer, reader = pair
        heard = Heard()
        reader.subscribe(WORDS, heard)
        publisher = writer.publisher(WORDS)
        assert writer.wait_for_readers(WORDS, 1, LONG_S)
        before_ns = time.monotonic_ns()
        publisher.publish(messages.string("가장 왼쪽"))
        assert eventually(lambda: len(heard.all) == 1)
        assert heard.words == ["가장 왼쪽"]
        assert before_ns <= heard.all[0].received_ns <= time.monotonic_ns()
        assert reader.received(WORDS) == 1
        assert reader.failures == 0

    def test_reliable_messages_arrive_all_and_in_order(self, pair):
        writer, reader = pair
        heard = Heard()
        reader.subscribe(WORDS, heard)
        publisher = writer.publisher(WORDS)
        assert writer.wait_for_readers(WORDS, 1, LONG_S)
        for batch in range(3):
            for number in range(10):  # as many as the history holds
                publisher.publish(messages.string(f"{batch}.{number}"))
            assert eventually(lambda: len(heard.all) == 10 * (batch + 1))  # noqa: B023
        assert heard.words == [f"{batch}.{number}" for batch in range(3) for number in range(10)]
        assert reader.received(WORDS) == 30

    def test_of_a_burst_on_a_newest_topic_the_last_arrives_last(self, pair):
        writer, reader = pair
        heard = Heard()
        reader.subscribe(SPEED, heard)
        publisher = writer.publisher(SPEED)
        assert writer.wait_for_readers(SPEED, 1, LONG_S)
        for number in range(200):
            publisher.publish(messages.twist(Twist(float(number), 0.0, 0.0)))
        assert eventually(lambda: bool(heard.all) and heard.all[-1].message.linear.x == 199.0)
        speeds = [received.message.linear.x for received in heard.all]
        assert speeds == sorted(speeds)
        assert reader.received(SPEED) >= len(speeds)

    def test_who_comes_late_gets_the_latched_message_and_only_the_last(self, make):
        publisher = make("writer").publisher(STATE)
        publisher.publish(messages.string("before"))
        publisher.publish(messages.string("now"))
        heard = Heard()
        make("reader").subscribe(STATE, heard)
        assert eventually(lambda: heard.words == ["now"])
        publisher.publish(messages.string("then"))
        assert eventually(lambda: heard.words == ["now", "then"])

    def test_who_comes_late_gets_nothing_old_of_other_topics(self, make):
        writer, heard = make("writer"), Heard()
        publisher = writer.publisher(WORDS)
        publisher.publish(messages.string("before"))
        make("reader").subscribe(WORDS, heard)
        assert writer.wait_for_readers(WORDS, 1, LONG_S)
        publisher.publish(messages.string("after"))
        assert eventually(lambda: bool(heard.all))
        assert heard.words == ["after"]

    def test_namespaces_keep_robots_apart_and_absolute_names_join_them(self, make, namespace):
        everywhere = Topic(f"{namespace}/all", "std_msgs/msg/String", Qos.DEFAULT, None, None, "test", "absolute")
        one, two = make("a", namespace=f"{namespace}/one"), make("b", namespace=f"{namespace}/two")
        heard = Heard()
        two.subscribe(WORDS, heard)
        two.subscribe(everywhere, heard)
        assert one.wait_for_readers(everywhere, 1, LONG_S)
        assert not one.wait_for_readers(WORDS, 1, 0.3)
        one.publisher(WORDS).publish(messages.string("not for you"))
        one.publisher(everywhere).publish(messages.string("for all"))
        assert eventually(lambda: heard.words == ["for all"])

    def test_names_can_be_remapped(self, make, namespace):
        writer = make("writer", remap={"words": f"{namespace}/phrases"})
        reader = make("reader", remap={"words": "phrases", "state": "words"})
        heard = Heard()
        reader.subscribe(WORDS, heard)
        assert writer.wait_for_readers(WORDS, 1, LONG_S)
        writer.publisher(WORDS).publish(messages.string("renamed"))
        assert eventually(lambda: heard.words == ["renamed"])
        assert reader.received(WORDS) == 1

    def test_a_topic_may_have_many_readers_and_they_are_counted(self, make):
        writer, heard = make("writer"), [Heard(), Heard(), Heard()]
        publisher = writer.publisher(WORDS)
        assert publisher.readers == 0
        assert not writer.wait_for_readers(WORDS, 1, 0.0)
        reader, other = make("reader"), make("other")
        reader.subscribe(WORDS, heard[0])
        reader.subscribe(WORDS, heard[1])
        other.subscribe(WORDS, heard[2])
        assert writer.wait_for_readers(WORDS, 3, LONG_S)
        assert publisher.readers == 3
        publisher.publish(messages.string("all"))
        assert eventually(lambda: all(h.words == ["all"] for h in heard))
        other.close()
        assert eventually(lambda: publisher.readers == 2)

    def test_a_publisher_asked_for_again_is_the_same(self, make):
        writer = make("writer")
        assert writer.publisher(WORDS) is writer.publisher(WORDS)

    def test_bytes_that_are_no_message_are_counted_and_end_nothing(self, pair, caplog):
        writer, reader = pair
        heard = Heard()
        reader.subscribe(WORDS, heard)
        publisher = writer.publisher(WORDS)
        assert writer.wait_for_readers(WORDS, 1, LONG_S)
        self.write_bytes(writer, WORDS, b"\x00\x01\x00\x00\x04\x00\x00\x00\xff\xfe\xfd\x00")  # a string, but not UTF-8
        assert eventually(lambda: reader.failures == 1)
        publisher.publish(messages.string("good"))
        assert eventually(lambda: heard.words == ["good"])
        assert reader.received(WORDS) == 2
        assert "words could not be read" in caplog.text

    def test_a_callback_that_raises_is_counted_and_ends_nothing(self, pair, caplog):
        writer, reader = pair
        heard = Heard()

        def picky(received: Received) -> None:
            if received.message.data == "bad":
                raise ValueError("not this one")
            heard(received)

        reader.subscribe(WORDS, picky)
        publisher = writer.publisher(WORDS)
        assert writer.wait_for_readers(WORDS, 1, LONG_S)
        for text in ("bad", "bad", "good"):
            publisher.publish(messages.string(text))
        assert eventually(lambda: heard.words == ["good"])
        assert reader.failures == 2
        assert "not this one" in caplog.text

    def test_callbacks_run_one_at_a_time_in_a_thread_of_the_transport(self, pair):
        writer, reader = pair
        inside, threads, overlaps = threading.Lock(), set(), []

        def slow(received: Received) -> None:
            overlaps.append(not inside.acquire(blocking=False))
            threads.add(threading.current_thread())
            time.sleep(0.002)
            inside.release()

        reader.subscribe(WORDS, slow)
        reader.subscribe(STATE, slow)
        for topic in (WORDS, STATE):
            assert writer.wait_for_readers(topic, 1, LONG_S)
        for number in range(10):
            for topic in (WORDS, STATE):
                writer.publisher(topic).publish(messages.string(str(number)))
        assert eventually(lambda: len(overlaps) >= 11)
        assert not any(overlaps)
        assert len(threads) == 1
        assert threading.current_thread() not in threads

    def test_a_callback_may_publish_and_close(self, pair):
        writer, reader = pair
        answers = Heard()
        writer.subscribe(STATE, answers)

        def answer(received: Received) -> None:
            reader.publisher(STATE).publish(messages.string(f"heard {received.message.data}"))
            reader.close()

        reader.subscribe(WORDS, answer)
        assert writer.wait_for_readers(WORDS, 1, LONG_S)
        assert reader.wait_for_readers(STATE, 1, LONG_S)
        writer.publisher(WORDS).publish(messages.string("you"))
        assert eventually(lambda: answers.words == ["heard you"])
        assert eventually(lambda: writer.publisher(WORDS).readers == 0)

    def test_a_callback_that_hangs_does_not_hold_up_the_end(self, pair, caplog):
        writer, reader = pair
        entered, release = threading.Event(), threading.Event()

        def hang(received: Received) -> None:
            entered.set()
            release.wait(LONG_S)

        reader.subscribe(WORDS, hang)
        assert writer.wait_for_readers(WORDS, 1, LONG_S)
        writer.publisher(WORDS).publish(messages.string("wait"))
        assert entered.wait(LONG_S)
        try:
            reader.close()
            assert "a callback hangs" in caplog.text
        finally:
            release.set()
            reader._thread.join(LONG_S)
        assert not reader._thread.is_alive()

    def test_a_message_of_another_type_is_refused(self, make):
        with pytest.raises(TransportError, match="cannot be written as std_msgs/msg/String"):
            make().publisher(WORDS).publish(messages.twist(Twist(0.0, 0.0, 0.0)))

    def test_a_type_that_nobody_knows_is_refused(self, make):
        unknown = Topic("thing", "their_msgs/msg/Thing", Qos.DEFAULT, None, None, "test", "")
        with pytest.raises(TransportError, match="their_msgs/msg/Thing"):
            make().subscribe(unknown, print)

    def test_the_type_of_a_subscription_may_differ_from_the_tables(self, pair):
        writer, reader = pair
        stamped = Topic("speed", "geometry_msgs/msg/TwistStamped", Qos.NEWEST, 50.0, None, "test", "")
        heard = Heard()
        reader.subscribe(SPEED, heard, type_name=stamped.type)
        assert writer.wait_for_readers(stamped, 1, LONG_S)
        writer.publisher(stamped).publish(messages.twist_stamped(Twist(1.0, 2.0, 3.0), 5))
        assert eventually(lambda: bool(heard.all))
        assert messages.twist_from_message(heard.all[0].message) == Twist(1.0, 2.0, 3.0)

    def test_every_topic_of_the_table_can_be_written_and_read(self, pair):
        writer, reader = pair
        for topic in topics.TOPICS:
            if not topic.name.startswith("/"):
                reader.subscribe(topic, print)
                assert writer.wait_for_readers(topic, 1, LONG_S), topic.name

    def test_closed_twice_is_closed_and_nothing_works_any_more(self, make):
        transport, other, heard = make("closing"), make("staying"), Heard()
        publisher = transport.publisher(WORDS)
        transport.subscribe(STATE, heard)
        state = other.publisher(STATE)
        assert other.wait_for_readers(STATE, 1, LONG_S)
        state.publish(messages.string("in time"))
        assert eventually(lambda: transport.received(STATE) == 1)
        transport.close()
        transport.close()
        state.publish(messages.string("too late"))
        for action in (
            lambda: publisher.publish(messages.string("x")),
            lambda: transport.subscribe(WORDS, print),
            lambda: transport.publisher(SPEED),
        ):
            with pytest.raises(TransportError, match="closed"):
                action()
        assert publisher.readers == 0
        assert transport.received(STATE) == 1
        assert heard.words == ["in time"]

    def test_closing_one_leaves_the_other(self, make):
        one, two, three = make("one"), make("two"), make("three")
        heard = Heard()
        three.subscribe(WORDS, heard)
        one.close()
        assert two.wait_for_readers(WORDS, 1, LONG_S)
        two.publisher(WORDS).publish(messages.string("still here"))
        assert eventually(lambda: heard.words == ["still here"])
