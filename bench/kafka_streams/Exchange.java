import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.avro.util.Utf8;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Produced;

/**
 * The benchmark's work in Kafka Streams: one thread, one source topic, two outputs.
 *
 * <p>The schemas come with the job, so there is no registry in the path. Serdes reuse their decoder,
 * encoder and buffer; strings stay Avro's Utf8 unless they are changed. Everything that is not set
 * here is Kafka Streams' default: commit.interval.ms is 30,000 with at_least_once and 100 with
 * exactly_once_v2, the producer lingers 100 ms.
 */
public final class Exchange {
    private static final int HEADER_BYTES = 5;

    private Exchange() {}

    public static void main(String[] arguments) throws IOException, InterruptedException {
        JsonNode job = new ObjectMapper().readTree(new File(arguments[0]));
        Work work = new Work(job);
        StreamsBuilder builder = new StreamsBuilder();
        if (arguments.length > 1 && arguments[1].equals("copy")) {
            copying(builder, job, work);
        } else {
            encoding(builder, job, work);
        }
        KafkaStreams streams = new KafkaStreams(builder.build(), settings(job));
        CountDownLatch ended = new CountDownLatch(1);
        int[] exitCode = {0};
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            exitCode[0] = 1;
            ended.countDown();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
        ended.await();
        System.exit(exitCode[0]);
    }

    /** As a Kafka Streams application is written: records in, records out, serdes at both ends. */
    private static void encoding(StreamsBuilder builder, JsonNode job, Work work) {
        KStream<byte[], GenericRecord> source = builder.stream(
                job.get("input").asText(), Consumed.with(Serdes.ByteArray(), work.written));
        source.mapValues(work::project)
                .to(job.get("projected").asText(), Produced.with(Serdes.ByteArray(), work.projected));
        source.filter((key, record) -> work.matches(record))
                .to(job.get("full").asText(), Produced.with(Serdes.ByteArray(), work.full));
    }

    /** The same by hand: decode once to decide and project, and send on the bytes that came. */
    private static void copying(StreamsBuilder builder, JsonNode job, Work work) {
        KStream<byte[], Read> source = builder
                .stream(job.get("input").asText(), Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .mapValues(bytes -> new Read(bytes, work.written.deserialize("", bytes)));
        source.mapValues(read -> work.project(read.record))
                .to(job.get("projected").asText(), Produced.with(Serdes.ByteArray(), work.projected));
        source.filter((key, read) -> work.matches(read.record))
                .mapValues(read -> read.bytes)
                .to(job.get("full").asText(), Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
    }

    /** A record and the bytes that it was read from. */
    private record Read(byte[] bytes, GenericRecord record) {}

    /** What is done to one record. */
    private static final class Work {
        final AvroSerde written;
        final AvroSerde projected;
        final AvroSerde full;
        private final int city;
        private final Utf8 wanted;
        private final int[] kept;
        private final int masked;

        Work(JsonNode job) {
            written = new AvroSerde(job.get("input_schema"));
            projected = new AvroSerde(job.get("projected_schema"));
            full = new AvroSerde(job.get("full_schema"));
            city = written.schema.getField("city").pos();
            wanted = new Utf8(job.get("city").asText());
            kept = projected.schema.getFields().stream()
                    .mapToInt(field -> written.schema.getField(field.name()).pos())
                    .toArray();
            masked = projected.schema.getField(job.get("masked").asText()).pos();
        }

        boolean matches(GenericRecord record) {
            return wanted.equals(record.get(city));
        }

        GenericRecord project(GenericRecord record) {
            GenericData.Record shown = new GenericData.Record(projected.schema);
            for (int at = 0; at < kept.length; at++) {
                Object value = record.get(kept[at]);
                shown.put(at, at == masked ? mask(value.toString()) : value);
            }
            return shown;
        }
    }

    private static String mask(String name) {
        int head = name.offsetByCodePoints(0, 1);
        return name.substring(0, head) + "*".repeat(name.codePointCount(head, name.length()));
    }

    private static Properties settings(JsonNode job) throws IOException {
        String password = Files.readString(Path.of(job.get("password_file").asText())).strip();
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, job.get("group").asText());
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, job.get("bootstrap").asText());
        settings.put(StreamsConfig.STATE_DIR_CONFIG, job.get("state").asText());
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, job.get("guarantee").asText());
        settings.put("security.protocol", "SASL_PLAINTEXT");
        settings.put("sasl.mechanism", "SCRAM-SHA-256");
        settings.put("sasl.jaas.config",
                "org.apache.kafka.common.security.scram.ScramLoginModule required username=\""
                        + job.get("user").asText() + "\" password=\"" + password + "\";");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        // As the other peers: large compressed batches. The defaults, 16 KiB and no compression, are slower.
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 1_048_576);
        return settings;
    }

    /** Confluent framing by hand: a zero, four bytes of schema id, the Avro body. */
    private static final class AvroSerde
            implements Serde<GenericRecord>, Serializer<GenericRecord>, Deserializer<GenericRecord> {
        final Schema schema;
        private final byte[] header;
        private final GenericDatumReader<GenericRecord> reader;
        private final GenericDatumWriter<GenericRecord> writer;
        private final ByteArrayOutputStream buffer = new ByteArrayOutputStream(256);
        private BinaryDecoder decoder;
        private BinaryEncoder encoder;

        AvroSerde(JsonNode described) {
            schema = new Schema.Parser().parse(described.get("schema").asText());
            header = ByteBuffer.allocate(HEADER_BYTES).put((byte) 0).putInt(described.get("id").asInt()).array();
            reader = new GenericDatumReader<>(schema);
            writer = new GenericDatumWriter<>(schema);
        }

        @Override
        public GenericRecord deserialize(String topic, byte[] data) {
            for (int at = 0; at < HEADER_BYTES; at++) {
                if (data[at] != header[at]) {
                    throw new SerializationException("another schema than the job's");
                }
            }
            decoder = DecoderFactory.get().binaryDecoder(data, HEADER_BYTES, data.length - HEADER_BYTES, decoder);
            try {
                return reader.read(null, decoder);
            } catch (IOException error) {
                throw new SerializationException(error);
            }
        }

        @Override
        public byte[] serialize(String topic, GenericRecord record) {
            buffer.reset();
            buffer.write(header, 0, HEADER_BYTES);
            encoder = EncoderFactory.get().directBinaryEncoder(buffer, encoder);
            try {
                writer.write(record, encoder);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            return buffer.toByteArray();
        }

        @Override
        public Serializer<GenericRecord> serializer() {
            return this;
        }

        @Override
        public Deserializer<GenericRecord> deserializer() {
            return this;
        }

        // Serde, Serializer and Deserializer each have one; there is nothing to close.
        @Override
        public void close() {}

        @Override
        public void configure(java.util.Map<String, ?> configs, boolean isKey) {}
    }
}
