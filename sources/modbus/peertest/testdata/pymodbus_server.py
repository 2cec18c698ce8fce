"""A Modbus server on pymodbus with fixed values of every type and byte order.

It listens on a free port of 127.0.0.1, prints "ready PORT" and serves until it
is killed. The values are those of libmodbus_server.c, encoded by pymodbus.
"""
import asyncio

from pymodbus.constants import Endian
from pymodbus.datastore import ModbusSequentialDataBlock, ModbusServerContext, ModbusSlaveContext
from pymodbus.payload import BinaryPayloadBuilder
from pymodbus.server import ModbusTcpServer

# ABCD, CDAB, BADC, DCBA as (order of bytes in a word, order of words)
ORDERS = [
    (Endian.BIG, Endian.BIG),
    (Endian.BIG, Endian.LITTLE),
    (Endian.LITTLE, Endian.BIG),
    (Endian.LITTLE, Endian.LITTLE),
]


def text(value, byteorder):
    """Return the registers of a text, two bytes each."""
    data = value.encode() + b"\0" * (len(value) % 2)
    order = "big" if byteorder == Endian.BIG else "little"
    return [int.from_bytes(data[i : i + 2], order) for i in range(0, len(data), 2)]


def values(byteorder, wordorder):
    """Return 1000 registers."""
    b = BinaryPayloadBuilder(byteorder=byteorder, wordorder=wordorder)
    b.add_16bit_int(-12345)
    b.add_16bit_uint(54321)
    b.add_32bit_int(-1234567890)
    b.add_32bit_uint(3456789012)
    b.add_32bit_float(-231.4375)
    b.add_64bit_int(-1234567890123456789)
    b.add_64bit_uint(12345678901234567890)
    b.add_64bit_float(1234567.890625)
    b.add_16bit_uint(0x9876)
    b.add_32bit_uint(0x12345678)
    b.add_16bit_uint(0xA50F)
    b.add_32bit_uint(0xA50F3CC3)
    b.add_16bit_int(-3)
    b.add_16bit_uint(1)
    words = [int.from_bytes(w, "big") for w in b.build()]
    words += [0] * (30 - len(words)) + text("Eastron SDM", byteorder)
    return words + [0] * (1000 - len(words))


async def main():
    """Serve until killed."""
    registers = [word for order in ORDERS for word in values(*order)]
    bits = [i % 3 == 0 for i in range(10)]
    unit = ModbusSlaveContext(
        co=ModbusSequentialDataBlock(0, list(bits)),
        di=ModbusSequentialDataBlock(0, list(bits)),
        hr=ModbusSequentialDataBlock(0, list(registers)),
        ir=ModbusSequentialDataBlock(0, list(registers)),
        zero_mode=True,
    )
    server = ModbusTcpServer(ModbusServerContext(slaves={1: unit}, single=False), address=("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve_forever())
    while not server.transport:
        await asyncio.sleep(0.01)
    print("ready", server.transport.sockets[0].getsockname()[1], flush=True)
    await serving


asyncio.run(main())
