// A peer of another make: eProsima Fast DDS, set up as rmw_fastrtps does with ROS_LOCALHOST_ONLY, with ROS 2's names.
//
//   peer DOMAIN SECONDS   reads commands from stdin, one a line, and prints what happens, one a line; ends on "quit",
//                         at the end of stdin, and after SECONDS in any case.
//
//   read TOPIC TYPE reliable|best_effort latched|volatile      print what comes on a topic
//   write TOPIC TYPE reliable|best_effort latched|volatile     open a writer
//   string TOPIC TEXT   twist TOPIC VX VY WZ   image TOPIC WIDTH HEIGHT   compressed TOPIC BYTES       write one message
//   junk TOPIC BYTES      write bytes that begin as CDR does and are no message
//   noise TOPIC BYTES     write bytes that do not even begin so
//
// Topic and type names are DDS's ("rt/cmd_vel", "geometry_msgs::msg::dds_::Twist_"). Values are written and read here
// with Fast CDR, field by field after the message definitions, so that no line of code is shared with what is tested.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <fastcdr/Cdr.h>
#include <fastcdr/FastBuffer.h>
#include <fastdds/dds/domain/DomainParticipant.hpp>
#include <fastdds/dds/domain/DomainParticipantFactory.hpp>
#include <fastdds/dds/publisher/DataWriter.hpp>
#include <fastdds/dds/publisher/DataWriterListener.hpp>
#include <fastdds/dds/publisher/Publisher.hpp>
#include <fastdds/dds/subscriber/DataReader.hpp>
#include <fastdds/dds/subscriber/DataReaderListener.hpp>
#include <fastdds/dds/subscriber/SampleInfo.hpp>
#include <fastdds/dds/subscriber/Subscriber.hpp>
#include <fastdds/dds/topic/TopicDataType.hpp>
#include <fastdds/dds/topic/TypeSupport.hpp>
#include <fastdds/rtps/transport/UDPv4TransportDescriptor.h>

using namespace eprosima::fastdds::dds;
using eprosima::fastcdr::Cdr;
using eprosima::fastcdr::FastBuffer;
using eprosima::fastrtps::rtps::InstanceHandle_t;
using eprosima::fastrtps::rtps::SerializedPayload_t;
using eprosima::fastrtps::types::ReturnCode_t;

using Bytes = std::vector<char>;

// A topic's data as the CDR bytes that travel, encapsulation included.
class RawType : public TopicDataType {
public:
    explicit RawType(const std::string& name) {
        setName(name.c_str());
        m_typeSize = 1024;
        m_isGetKeyDefined = false;
        auto_fill_type_information(false);
        auto_fill_type_object(false);
    }
    bool serialize(void* data, SerializedPayload_t* payload) override {
        const Bytes& bytes = *static_cast<Bytes*>(data);
        payload->length = static_cast<uint32_t>(bytes.size());
        payload->encapsulation = CDR_LE;
        std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(payload->data));
        return true;
    }
    bool deserialize(SerializedPayload_t* payload, void* data) override {
        const char* from = reinterpret_cast<const char*>(payload->data);
        static_cast<Bytes*>(data)->assign(from, from + payload->length);
        return true;
    }
    std::function<uint32_t()> getSerializedSizeProvider(void* data) override {
        return [data]() { return static_cast<uint32_t>(static_cast<Bytes*>(data)->size()); };
    }
    void* createData() override { return new Bytes(); }
    void deleteData(void* data) override { delete static_cast<Bytes*>(data); }
    bool getKey(void*, InstanceHandle_t*, bool) override { return false; }
};

std::mutex print_lock;

void print(const std::string& line) {
    std::lock_guard<std::mutex> guard(print_lock);
    std::cout << line << std::endl;
}

std::string hash_of(const unsigned char* data, size_t size) {  // FNV-1a, 64 bits
    uint64_t hash = 14695981039346656037ull;
    for (size_t i = 0; i < size; ++i) hash = (hash ^ data[i]) * 1099511628211ull;
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
    return text;
}

std::string hex_of(const uint8_t* data, size_t size) {
    std::string text;
    char two[3];
    for (size_t i = 0; i < size; ++i) {
        std::snprintf(two, sizeof two, "%02x", data[i]);
        text += two;
    }
    return text;
}

void read_header(Cdr& cdr, std::ostream& out) {
    int32_t sec;
    uint32_t nanosec;
    std::string frame;
    cdr >> sec >> nanosec >> frame;
    out << sec << " " << nanosec << " " << frame;
}

std::vector<uint8_t> read_octets(Cdr& cdr) {
    uint32_t size;
    cdr >> size;
    std::vector<uint8_t> octets(size);
    cdr.deserializeArray(octets.data(), size);
    return octets;
}

// The values of the types that the tests send, by the order of fields in ROS 2's definitions.
std::string values_of(const std::string& type, Bytes& bytes) {
    FastBuffer buffer(bytes.data(), bytes.size());
    Cdr cdr(buffer, Cdr::DEFAULT_ENDIAN, Cdr::DDS_CDR);
    std::ostringstream out;
    out.precision(17);
    try {
        cdr.read_encapsulation();
        if (type == "std_msgs::msg::dds_::String_") {
            std::string text;
            cdr >> text;
            out << text;
        } else if (type == "geometry_msgs::msg::dds_::Twist_") {
            double values[6];
            for (double& value : values) cdr >> value;
            for (double value : values) out << value << " ";
        } else if (type == "sensor_msgs::msg::dds_::Image_") {
            uint32_t height, width, step;
            std::string encoding;
            uint8_t bigendian;
            read_header(cdr, out);
            cdr >> height >> width >> encoding >> bigendian >> step;
            std::vector<uint8_t> data = read_octets(cdr);
            out << " " << height << " " << width << " " << encoding << " " << step << " " << data.size() << " "
                << hash_of(data.data(), data.size());
        } else if (type == "sensor_msgs::msg::dds_::CompressedImage_") {
            std::string format;
            read_header(cdr, out);
            cdr >> format;
            std::vector<uint8_t> data = read_octets(cdr);
            out << " " << format << " " << data.size() << " " << hash_of(data.data(), data.size());
        } else if (type == "rmw_dds_common::msg::dds_::ParticipantEntitiesInfo_") {
            uint8_t gid[16];
            uint32_t nodes;
            cdr.deserializeArray(gid, 16);
            cdr >> nodes;
            out << hex_of(gid, 16) << " " << nodes;
            for (uint32_t i = 0; i < nodes; ++i) {
                std::string space, name;
                uint32_t readers, writers;
                cdr >> space >> name >> readers;
                for (uint32_t k = 0; k < readers; ++k) cdr.deserializeArray(gid, 16);
                cdr >> writers;
                for (uint32_t k = 0; k < writers; ++k) cdr.deserializeArray(gid, 16);
                out << " " << space << " " << name << " " << readers << " " << writers;
            }
        }
    } catch (const std::exception& error) {
        out << "UNREADABLE " << error.what();
    }
    return out.str();
}

class Reading : public DataReaderListener {
public:
    Reading(std::string topic, std::string type) : topic_(std::move(topic)), type_(std::move(type)) {}
    void on_data_available(DataReader* reader) override {
        Bytes bytes;
        SampleInfo info;
        while (reader->take_next_sample(&bytes, &info) == ReturnCode_t::RETCODE_OK) {
            if (info.valid_data) print("got " + topic_ + " " + std::to_string(bytes.size()) + " " + values_of(type_, bytes));
        }
    }
    void on_subscription_matched(DataReader*, const SubscriptionMatchedStatus& status) override {
        print("writers " + topic_ + " " + std::to_string(status.current_count));
    }

private:
    std::string topic_, type_;
};

class Writing : public DataWriterListener {
public:
    explicit Writing(std::string topic) : topic_(std::move(topic)) {}
    void on_publication_matched(DataWriter*, const PublicationMatchedStatus& status) override {
        print("readers " + topic_ + " " + std::to_string(status.current_count));
    }

private:
    std::string topic_;
};

// CDR of one message, made by ``fill``.
Bytes message(const std::function<void(Cdr&)>& fill, size_t room = 4096) {
    Bytes bytes(room + 4096);
    FastBuffer buffer(bytes.data(), bytes.size());
    Cdr cdr(buffer, Cdr::LITTLE_ENDIANNESS, Cdr::DDS_CDR);
    cdr.serialize_encapsulation();
    fill(cdr);
    bytes.resize(cdr.getSerializedDataLength());
    return bytes;
}

void write_header(Cdr& cdr) { cdr << int32_t(1234) << uint32_t(567) << std::string("peer_camera"); }

void write_pattern(Cdr& cdr, uint32_t size) {
    std::vector<uint8_t> data(size);
    for (uint32_t i = 0; i < size; ++i) data[i] = static_cast<uint8_t>(i % 251);
    cdr << size;
    cdr.serializeArray(data.data(), size);
}

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: peer DOMAIN SECONDS" << std::endl;
        return 2;
    }
    std::thread([seconds = std::atoi(argv[2])] {
        std::this_thread::sleep_for(std::chrono::seconds(seconds));
        std::_Exit(3);
    }).detach();

    DomainParticipantQos participant_qos;
    participant_qos.name("peer");
    const std::string enclave = "enclave=/;";
    participant_qos.user_data().setValue(std::vector<uint8_t>(enclave.begin(), enclave.end()));
    auto udp = std::make_shared<eprosima::fastdds::rtps::UDPv4TransportDescriptor>();
    udp->interfaceWhiteList.push_back("127.0.0.1");
    participant_qos.transport().use_builtin_transports = false;
    participant_qos.transport().user_transports.push_back(udp);
    auto* factory = DomainParticipantFactory::get_instance();
    DomainParticipant* participant = factory->create_participant(std::atoi(argv[1]), participant_qos);
    if (participant == nullptr) return 1;
    Publisher* publisher = participant->create_publisher(PUBLISHER_QOS_DEFAULT);
    Subscriber* subscriber = participant->create_subscriber(SUBSCRIBER_QOS_DEFAULT);

    std::map<std::string, Topic*> topics;
    std::map<std::string, DataWriter*> writers;
    auto topic_of = [&](const std::string& name, const std::string& type) {
        if (!topics.count(name)) {
            TypeSupport(new RawType(type)).register_type(participant);
            topics[name] = participant->create_topic(name, type, TOPIC_QOS_DEFAULT);
        }
        return topics[name];
    };
    print("ready");

    std::string line;
    while (std::getline(std::cin, line)) {
        std::istringstream words(line);
        std::string what, name, type, reliability, durability;
        words >> what >> name;
        if (what == "quit") break;
        if (what == "read" || what == "write") {
            words >> type >> reliability >> durability;
            const auto reliable = reliability == "reliable" ? RELIABLE_RELIABILITY_QOS : BEST_EFFORT_RELIABILITY_QOS;
            const auto durable = durability == "latched" ? TRANSIENT_LOCAL_DURABILITY_QOS : VOLATILE_DURABILITY_QOS;
            const auto memory = eprosima::fastrtps::rtps::PREALLOCATED_WITH_REALLOC_MEMORY_MODE;
            Topic* topic = topic_of(name, type);
            if (what == "read") {
                DataReaderQos qos;
                qos.reliability().kind = reliable;
                qos.durability().kind = durable;
                qos.history().depth = 100;
                qos.endpoint().history_memory_policy = memory;
                qos.data_sharing().off();
                subscriber->create_datareader(topic, qos, new Reading(name, type));
            } else {
                DataWriterQos qos;
                qos.reliability().kind = reliable;
                qos.durability().kind = durable;
                qos.history().depth = 10;
                qos.endpoint().history_memory_policy = memory;
                qos.publish_mode().kind = ASYNCHRONOUS_PUBLISH_MODE;
                qos.data_sharing().off();
                writers[name] = publisher->create_datawriter(topic, qos, new Writing(name));
            }
            print("open " + name);
            continue;
        }
        if (!writers.count(name)) {
            print("no writer " + name);
            continue;
        }
        Bytes bytes;
        if (what == "string") {
            std::string text;
            std::getline(words >> std::ws, text);
            bytes = message([&](Cdr& cdr) { cdr << text; });
        } else if (what == "twist") {
            double vx, vy, wz;
            words >> vx >> vy >> wz;
            bytes = message([&](Cdr& cdr) { cdr << vx << vy << 0.0 << 0.0 << 0.0 << wz; });
        } else if (what == "image") {
            uint32_t width, height;
            words >> width >> height;
            bytes = message(
                [&](Cdr& cdr) {
                    write_header(cdr);
                    cdr << height << width << std::string("rgb8") << uint8_t(0) << 3 * width;
                    write_pattern(cdr, 3 * width * height);
                },
                3 * width * height);
        } else if (what == "compressed") {
            uint32_t size;
            words >> size;
            bytes = message(
                [&](Cdr& cdr) {
                    write_header(cdr);
                    cdr << std::string("jpeg");
                    write_pattern(cdr, size);
                },
                size);
        } else if (what == "junk" || what == "noise") {
            size_t size;
            words >> size;
            bytes.assign(std::max<size_t>(size, 4), '\x7f');
            if (what == "junk") std::copy_n("\0\1\0\0", 4, bytes.begin());
        }
        writers[name]->write(&bytes);
        print("sent " + name + " " + std::to_string(bytes.size()));
    }
    participant->delete_contained_entities();
    factory->delete_participant(participant);
    return 0;
}
