#include "bits.h"

void bits_put(struct bit_writer *writer, unsigned long value, int count)
{
    writer->held = writer->held << count | (value & ((1ULL << count) - 1));
    writer->count += count;
    while (writer->count >= 8) {
        writer->count -= 8;
        bytes_put(writer->bytes, (writer->held >> writer->count) & 0xff);
    }
}

void bits_flush(struct bit_writer *writer)
{
    if (writer->count > 0)
        bits_put(writer, 0, 8 - writer->count);
}

int bits_get(struct bit_reader *reader)
{
    if (reader->count == 0) {
        if (reader->next >= reader->bytes->length)
            return -1;
        reader->held = reader->bytes->data[reader->next++];
        reader->count = 8;
    }
    reader->count--;
    return (reader->held >> reader->count) & 1;
}
